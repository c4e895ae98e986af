"""The same model behind plain FastAPI, as it is written by hand."""

from fastapi import FastAPI
from model import squares
from pydantic import BaseModel

app = FastAPI()


class Input(BaseModel):
    input: float


@app.post("/predict")
def predict(body: Input):
    return {"output": squares([body.input])[0]}
