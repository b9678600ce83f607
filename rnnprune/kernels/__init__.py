"""The ground: one contract for sparse products and recurrent layers, several engines. No files, no nn.Module."""
