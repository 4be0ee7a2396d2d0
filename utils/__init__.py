"""What the models share: programs at the top level, library packages (rooms) beneath."""

import os

# Libraries read these when they are imported. They are quiet, and do not wait long for the hub.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # long reports of lost connections
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")  # seconds
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "15")
