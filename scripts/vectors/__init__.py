"""Makes the test vectors under ``schemas/vectors`` and judges them with the real code."""
