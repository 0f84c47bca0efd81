"""Parts of several sources → one table: whose rows are one record, whose values stand."""
