# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's own tensors (inflight_batcher_llm, 1.x), as clients and tools of it rely on them.

Written down from the stock config.pbtxt files: name, type, dims, marks. "?" optional, "[]" reshaped
to a scalar, "ragged" allow_ragged_batch; a type in lower case is a placeholder. Left out is what
serves encoder-decoder, multimodal, prompt-tuned and draft models: Sprout has text for decoders.
"""

# Of both models that clients call.
TEXT_INPUTS = """
        text_input STRING 1
        max_tokens INT32 1
        bad_words STRING -1 ?
        stop_words STRING -1 ?
        exclude_input_in_output BOOL 1 ?
        end_id INT32 1 ?
        pad_id INT32 1 ?
        top_k INT32 1 ?
        top_p FP32 1 ?
        temperature FP32 1 ?
        length_penalty FP32 1 ?
        repetition_penalty FP32 1 ?
        min_tokens INT32 1 ?
        presence_penalty FP32 1 ?
        frequency_penalty FP32 1 ?
        seed UINT64 1 ?
        beam_width INT32 1 ?
        stream BOOL 1 ?
        embedding_bias_words STRING -1 ?
        embedding_bias_weights FP32 -1 ?
"""
INPUTS = {
    "ensemble": f"""
        {TEXT_INPUTS}
        num_return_sequences INT32 1 ?
        return_log_probs BOOL 1 ?
        return_context_logits BOOL 1 ?
        return_generation_logits BOOL 1 ?
        return_perf_metrics BOOL 1 ?
        return_num_input_tokens BOOL 1 ?
        return_num_output_tokens BOOL 1 ?
        lora_task_id UINT64 1 ?
        lora_weights FP16 -1,-1 ? ragged
        lora_config INT32 -1,3 ? ragged
        guided_decoding_guide_type STRING 1 ? ragged
        guided_decoding_guide STRING 1 ? ragged
    """,
    "tensorrt_llm_bls": f"""
        {TEXT_INPUTS}
        return_log_probs BOOL 1 ? []
        return_context_logits BOOL 1 ? []
        return_generation_logits BOOL 1 ? []
        num_return_sequences INT32 1 ? []
        lora_task_id UINT64 1 ? []
        return_perf_metrics BOOL 1 ? []
        return_num_input_tokens BOOL 1 ? []
        return_num_output_tokens BOOL 1 ? []
        guided_decoding_guide_type STRING 1 ?
        guided_decoding_guide STRING 1 ?
    """,
    "preprocessing": """
        QUERY STRING 1
        REQUEST_OUTPUT_LEN INT32 1
        BAD_WORDS_DICT STRING -1 ?
        STOP_WORDS_DICT STRING -1 ?
        EMBEDDING_BIAS_WORDS STRING -1 ?
        EMBEDDING_BIAS_WEIGHTS FP32 -1 ?
        END_ID INT32 1 ?
        PAD_ID INT32 1 ?
    """,
    "tensorrt_llm": """
        input_ids INT32 -1 ? ragged
        encoder_input_features encoder_input_features_data_type -1,-1 ? ragged
        encoder_output_lengths INT32 1 ? []
        input_lengths INT32 1 []
        request_output_len INT32 1 []
        num_return_sequences INT32 1 ? []
        draft_input_ids INT32 -1 ? ragged
        decoder_input_ids INT32 -1 ? ragged
        decoder_input_lengths INT32 1 ? []
        draft_logits logits_datatype -1,-1 ? ragged
        draft_acceptance_threshold FP32 1 ? []
        end_id INT32 1 ? []
        pad_id INT32 1 ? []
        stop_words_list INT32 2,-1 ? ragged
        bad_words_list INT32 2,-1 ? ragged
        embedding_bias FP32 -1 ? ragged
        beam_width INT32 1 ? []
        temperature FP32 1 ? []
        runtime_top_k INT32 1 ? []
        runtime_top_p FP32 1 ? []
        runtime_top_p_min FP32 1 ? []
        runtime_top_p_decay FP32 1 ? []
        runtime_top_p_reset_ids INT32 1 ? []
        len_penalty FP32 1 ? []
        early_stopping BOOL 1 ? []
        repetition_penalty FP32 1 ? []
        min_tokens INT32 1 ? []
        beam_search_diversity_rate FP32 1 ? []
        presence_penalty FP32 1 ? []
        frequency_penalty FP32 1 ? []
        seed UINT64 1 ? []
        return_log_probs BOOL 1 ? []
        return_context_logits BOOL 1 ? []
        return_generation_logits BOOL 1 ? []
        return_perf_metrics BOOL 1 ? []
        return_num_input_tokens BOOL 1 ? []
        return_num_output_tokens BOOL 1 ? []
        exclude_input_in_output BOOL 1 ? []
        stop BOOL 1 ? []
        streaming BOOL 1 ? []
        prompt_embedding_table prompt_embedding_table_data_type -1,-1 ? ragged
        prompt_table_extra_ids UINT64 -1 ? ragged
        prompt_vocab_size INT32 1 ? []
        cross_attention_mask BOOL -1,-1 ? ragged
        mrope_rotary_cos_sin FP32 -1 ?
        mrope_position_deltas INT64 1 ?
        lora_task_id UINT64 1 ? []
        lora_weights FP16 -1,-1 ? ragged
        lora_config INT32 -1,3 ? ragged
        context_phase_params UINT8 -1 ? ragged
        skip_cross_attn_blocks BOOL 1 ? ragged
        retention_token_range_starts INT32 -1 ? ragged
        retention_token_range_ends INT32 -1 ? ragged
        retention_token_range_priorities INT32 -1 ? ragged
        retention_token_range_durations_ms INT32 -1 ? ragged
        retention_decode_priority INT32 1 ? ragged
        retention_decode_duration_ms INT32 1 ? ragged
        guided_decoding_guide_type STRING 1 ? ragged
        guided_decoding_guide STRING 1 ? ragged
        lookahead_window_size INT32 1 ? ragged
        lookahead_ngram_size INT32 1 ? ragged
        lookahead_verification_set_size INT32 1 ? ragged
    """,
    "postprocessing": """
        TOKENS_BATCH INT32 -1,-1
        SEQUENCE_LENGTH INT32 -1
    """,
}

# What several models carry; the order of tensors is of no account.
TIMES = """
        arrival_time_ns INT64 1
        first_scheduled_time_ns INT64 1
        first_token_time_ns INT64 1
        last_token_time_ns INT64 1
"""
PROBABILITIES = """
        cum_log_probs FP32 -1
        output_log_probs FP32 -1,-1
        context_logits logits_datatype -1,-1
        generation_logits logits_datatype -1,-1,-1
        batch_index INT32 1
        sequence_index INT32 1
"""
MEASURES = f"""
        kv_cache_alloc_new_blocks INT32 1
        kv_cache_reused_blocks INT32 1
        kv_cache_alloc_total_blocks INT32 1
        {TIMES}
        acceptance_rate FP32 1
        total_accepted_draft_tokens INT32 1
        total_draft_tokens INT32 1
        num_input_tokens INT32 1
        num_output_tokens INT32 1
"""
ANSWER = f"""
        text_output STRING -1
        {PROBABILITIES}
        {MEASURES}
"""
OUTPUTS = {
    "ensemble": ANSWER,
    "tensorrt_llm_bls": ANSWER,
    "preprocessing": """
        INPUT_ID INT32 -1
        REQUEST_INPUT_LEN INT32 1
        BAD_WORDS_IDS INT32 2,-1
        STOP_WORDS_IDS INT32 2,-1
        EMBEDDING_BIAS FP32 -1
        REQUEST_OUTPUT_LEN INT32 -1
        OUT_END_ID INT32 1
        OUT_PAD_ID INT32 1
    """,
    "tensorrt_llm": f"""
        output_ids INT32 -1,-1
        sequence_length INT32 -1
        {PROBABILITIES}
        context_phase_params UINT8 -1
        {MEASURES}
    """,
    "postprocessing": """
        OUTPUT STRING -1
    """,
}

# What Sprout adds. No input of it is required.
RECEIPT = """
        directive_level INT32 1
        policy_version UINT64 1
        energy_joules FP32 1
        carbon_grams FP32 1
        carbon_intensity FP32 1
"""
ADDED_INPUTS = {
    "postprocessing": """
        FLIGHT UINT64 -1 ?
        LAST_TOKEN_TIME_NS INT64 1 ?
    """
}
ADDED_OUTPUTS = {
    "ensemble": RECEIPT,
    "tensorrt_llm_bls": RECEIPT,
    "preprocessing": "FLIGHT UINT64 1",
    "postprocessing": RECEIPT.upper(),
}

# The ensemble's maps: model -> its tensor -> the ensemble's, where the names differ.
MAPS = {
    "preprocessing": {
        "QUERY": "text_input",
        "REQUEST_OUTPUT_LEN": "max_tokens",
        "BAD_WORDS_DICT": "bad_words",
        "STOP_WORDS_DICT": "stop_words",
        "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
        "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
        "END_ID": "end_id",
        "PAD_ID": "pad_id",
    },
    "tensorrt_llm": {
        "input_ids": "_INPUT_ID",
        "input_lengths": "_REQUEST_INPUT_LEN",
        "request_output_len": "_REQUEST_OUTPUT_LEN",
        "end_id": "_PREPROCESSOR_END_ID",
        "pad_id": "_PREPROCESSOR_PAD_ID",
        "embedding_bias": "_EMBEDDING_BIAS",
        "stop_words_list": "_STOP_WORDS_IDS",
        "bad_words_list": "_BAD_WORDS_IDS",
        "runtime_top_k": "top_k",
        "runtime_top_p": "top_p",
        "len_penalty": "length_penalty",
        "streaming": "stream",
    },
    "postprocessing": {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
}
# Ensemble inputs that the engine has under the same name.
SAME_NAME = """
    temperature repetition_penalty min_tokens presence_penalty frequency_penalty seed
    exclude_input_in_output return_log_probs return_context_logits return_generation_logits
    return_perf_metrics return_num_input_tokens return_num_output_tokens num_return_sequences
    beam_width lora_task_id lora_weights lora_config guided_decoding_guide_type
    guided_decoding_guide
"""
