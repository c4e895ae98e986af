"""Trains both models on the tumours that scikit-learn ships, and stores them beside this file."""

import joblib
from model import FILE
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    rows, benign = load_breast_cancer(return_X_y=True)
    forest = RandomForestClassifier(n_estimators=300, random_state=0).fit(rows, benign)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, benign)
    joblib.dump({"forest": forest, "linear": linear}, FILE)
    print(f"trained on {len(rows)} tumours, stored {FILE.name}")


if __name__ == "__main__":
    main()
