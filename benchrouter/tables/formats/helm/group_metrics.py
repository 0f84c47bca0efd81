"""The main metric of each of HELM's scenario groups."""

from __future__ import annotations

from collections.abc import Sequence

# `main_name` of the run groups in crfm-helm 0.5.16, helm/benchmark/static/schema_*.yaml: classic,
# lite, capabilities, mmlu and the other schemas of text whose metric is one per instance.
_GROUPS = {
    "exact_match": """
        hellaswag openbookqa truthful_qa mmlu blimp thai_exam alghafa arabic_mmlu arabic_exams
        madinah_qa aratrust mbzuai_human_translated_arabic_mmlu arabic_finance_mcq enem_challenge
        ewok infinite_bench_en_mc winogrande_afr mmlu_clinical_afr tweetsentbr med_mcqa clear
        ehrshot head_qa medbullets pubmed_qa shc_ptbm_med shc_sei_med shc_conf_med shc_proxy_med
        shc_privacy_med shc_bmt_med race_based_med n2c2_ct_matching medhallu shc_gip_med
        shc_sequoia_med shc_cdi_med shc_ent_med indonli xnli_vi xnli_th indicxnli xcopa_id
        xcopa_vi xcopa_th xcopa_ta lindsea_syntax_minimal_pairs_id
        lindsea_pragmatics_presuppositions_id lindsea_pragmatics_scalar_implicatures_id
        cleva_closed_book_question_answering cleva_text_classification cleva_opinion_mining
        cleva_paraphrase_identification cleva_reading_comprehension cleva_sentiment_analysis
        cleva_classical_chinese_understanding cleva_coreference_resolution
        cleva_intent_understanding cleva_subject_knowledge cleva_cultural_knowledge
        cleva_reasoning_primitive cleva_deductive_reasoning cleva_inductive_reasoning
        cleva_code_synthesis cleva_commonsense_reasoning cleva_toxicity_detection cleva_bias
        cleva_fact_checking cleva_instruction_following cleva_mathematical_calculation
        """,
    "quasi_exact_match": """
        boolq imdb raft civil_comments wikifact babi_qa synthetic_reasoning legalbench
        legal_support lsat_qa med_qa entity_data_imputation entity_matching bbq
        decodingtrust_adv_robustness decodingtrust_adv_demonstration
        decodingtrust_ood_robustness decodingtrust_fairness decodingtrust_privacy
        decodingtrust_machine_ethics adv_robustness adv_demonstration ood_robustness fairness
        privacy machine_ethics casehold legal_opinion_sentiment_classification cti_to_mitre
        banking77 arabic_finance_bool melt_question_answering_mlqa melt_question_answering_xquad
        melt_synthetic_reasoning melt_text_classification_phoatis melt_text_classification_vsmec
        melt_sentiment_analysis_vlsp melt_sentiment_analysis_vsfc melt_translation_opus100
        melt_translation_phomt melt_lm_mask_filling_mlqa melt_lm_spelling_correction_vsec
        melt_knowledge_zalo melt_knowledge_vimmrc melt_toxicity_detection_vihsd
        melt_toxicity_detection_victsd
        """,
    "exact_match_indicator": "dyck_language",
    "final_number_exact_match": "gsm",
    "f1_score": "narrative_qa natural_qa_closedbook natural_qa_openbook_longans quac",
    "f1_set_match": "synthetic_reasoning_natural melt_synthetic_reasoning_natural",
    "squad_f1_score": "tydiqa xquad_vi xquad_th indicqa",
    "math_equiv": "math_regular melt_math_regular",
    "math_equiv_chain_of_thought": "math_chain_of_thought melt_math_chain_of_thought",
    "cleva_math_result_match": "cleva_mathematical_reasoning",
    "cleva_top1_accuracy": "cleva_conceptual_generalization",
    "rouge_2": """
        summarization_cnndm summarization_xsum billsum_legal_summarization
        multilexsum_legal_summarization eurlexsum_legal_summarization
        melt_summarization_vietnews melt_summarization_wikilingua
        """,
    "rouge_l": "legal_contract_summarization sumosum infinite_bench_en_sum",
    "bleu_4": "wmt_14",
    "chinese_bleu_1": """
        cleva_data_to_text_generation cleva_dialogue_generation cleva_pinyin_transliteration
        """,
    "chinese_rouge_2": "cleva_summarization",
    "RR@10": "msmarco_regular melt_information_retrieval_mmarco",
    "NDCG@10": "msmarco_trec melt_information_retrieval_mrobust",
    "pass": "code_humaneval",
    "test_avg": "code_apps",
    "chain_of_thought_correctness": "mmlu_pro gpqa",
    "ifeval_strict_accuracy": "ifeval",
    "omni_math_accuracy": "omni_math",
    "wildbench_score_rescaled": "wildbench",
    "safety_score": """
        harm_bench harm_bench_gcg_transfer simple_safety_tests xstest anthropic_red_team
        """,
    "air_score": "air_bench_2024",
    "annotation_financebench_label_correct_answer": "financebench",
    "program_accuracy": "fin_qa",
    "float_equiv": "conv_fin_qa_calc",
    "calculation_accuracy": "arabic_finance_calculation",
    "alrage_score": "alrage",
    "execution_accuracy": "spider bird_sql",
    "ehr_sql_execution_accuracy": "ehr_sql",
    "medcalc_bench_accuracy": "medcalc_bench",
    "medec_error_flag_accuracy": "medec",
    "openai_mrcr_accuracy": "openai_mrcr",
    "ruler_string_match_part": "ruler_squad ruler_hotpotqa",
}
MAIN_METRIC = {group: name for name, groups in _GROUPS.items() for group in groups.split()}
# Where schemas disagree or older runs differ: for runs that lack the first.
_ELSE = {"gsm": "exact_match_indicator", "med_qa": "exact_match"}
# Runs with one request per reference have only the exact match.
_SEPARATE = "multiple_choice_separate"


def main_metrics(groups: Sequence[str], method: str) -> tuple[str, ...]:
    """Names of a run's main metric, the preferred one first; empty if no group is known.

    Parameters
    ----------
    groups : sequence of str
        The run's groups, then its scenario.
    method : str
        The run's adapter.
    """
    group = next((group for group in groups if group in MAIN_METRIC), None)
    if group is None:
        return ()
    metric = MAIN_METRIC[group]
    if group in _ELSE:
        return metric, _ELSE[group]
    if metric == "quasi_exact_match" and method.startswith(_SEPARATE):
        return metric, "exact_match"
    return (metric,)
