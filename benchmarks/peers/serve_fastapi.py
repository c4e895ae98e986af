"""FastAPI under uvicorn, written as in :mod:`services`: ``python serve_fastapi.py MODEL PORT lean|validated``."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from models import MODELS

sys.path.append(str(Path(__file__).resolve().parents[1]))
import services

if __name__ == "__main__":
    model, port, form = sys.argv[1:]
    app = {"lean": services.lean, "validated": services.validated}[form](MODELS[model])
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False, log_level="warning")
