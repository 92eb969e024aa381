"""Tiny Mllama configurations: every number that a configuration can hold differs somewhere from all the others."""

from tests.models.mllama_reference import Size

PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
# Frequencies of all three kinds: kept, blended and slowed down.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
SHORT = {
    "rope_type": "llama3", "rope_theta": 30.0, "factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 6.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
TEXT = {
    "vocab_size": 120, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "cross_attention_layers": [1, 4], "rope_parameters": LLAMA3, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 16384, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_global_layers": 2, "attention_heads": 4,
    "image_size": 56, "patch_size": 14, "max_num_tiles": 4, "intermediate_layers_indices": [1, 3], "norm_eps": 1e-5,
}  # fmt: skip

SIZES = {
    "released_in_small": Size(TEXT, VISION),
    "one_head_of_keys": Size(
        TEXT | {"num_attention_heads": 6, "num_key_value_heads": 1, "num_hidden_layers": 4, "vocab_size": 77,
                "cross_attention_layers": [0, 3], "rope_parameters": PLAIN, "rms_norm_eps": 1e-3},
        VISION | {"image_size": 40, "patch_size": 8, "max_num_tiles": 3, "intermediate_layers_indices": [1, 2, 3]},
        image_token=3,
    ),
    "cross_layers_side_by_side": Size(
        TEXT | {"num_key_value_heads": 4, "cross_attention_layers": [2, 3], "num_hidden_layers": 5, "hidden_size": 40},
        VISION | {"max_num_tiles": 2, "hidden_size": 24, "attention_heads": 2, "num_global_layers": 1,
                  "intermediate_layers_indices": [2]},
        image_token=7,
    ),
    "one_tile_and_last_layer_cross": Size(
        TEXT | {"cross_attention_layers": [5], "intermediate_size": 40},
        VISION | {"max_num_tiles": 1, "num_hidden_layers": 6, "intermediate_layers_indices": [1, 2, 4, 5],
                  "patch_size": 8, "image_size": 24, "num_global_layers": 3},
    ),
    "wide_heads": Size(
        TEXT | {"num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 64, "num_hidden_layers": 3,
                "cross_attention_layers": [2]},
        VISION | {"attention_heads": 8, "image_size": 64, "patch_size": 16, "intermediate_size": 100,
                  "num_hidden_layers": 2, "intermediate_layers_indices": [1]},
        image_token=1,
    ),
    "other_epsilon": Size(
        TEXT | {"cross_attention_layers": [0, 2, 5], "num_attention_heads": 8, "num_key_value_heads": 2,
                "rope_parameters": SHORT},
        VISION | {"norm_eps": 1e-2, "num_hidden_layers": 5, "intermediate_layers_indices": [4, 1],
                  "image_size": 42, "max_num_tiles": 4},
    ),
    "half_of_the_layers_cross": Size(
        TEXT | {"cross_attention_layers": [0, 1, 5], "vocab_size": 130, "rope_parameters": PLAIN},
        VISION | {"max_num_tiles": 2, "image_size": 28, "num_hidden_layers": 3, "num_global_layers": 4,
                  "intermediate_layers_indices": [1]},
    ),
}  # fmt: skip
# What Meta's code has no settings for: other frequencies, another epsilon, features in another order. What transformers
# has none for: the input of the first layer.
META_SIZES = {name: size for name, size in SIZES.items() if name != "other_epsilon"} | {
    "first_layers_input": Size(TEXT, VISION | {"intermediate_layers_indices": [0, 2]}, image_token=5)
}
