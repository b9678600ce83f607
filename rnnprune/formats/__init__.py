"""Files in and out: the safe checkpoint reader, sparse safetensors, atomic writing. Knows arrays, not training."""
