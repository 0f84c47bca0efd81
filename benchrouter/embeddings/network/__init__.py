"""The network: our forward pass of BERT and MPNet, and the one through transformers."""
