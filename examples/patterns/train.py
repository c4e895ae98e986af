"""Train both models on the data that scikit-learn ships, and write them to tumours.joblib beside this file."""

import joblib
from model import FILE
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    rows, benign = load_breast_cancer(return_X_y=True)
    known, unseen, answers, expected = train_test_split(rows, benign, random_state=0)
    models = {
        "forest": RandomForestClassifier(n_estimators=100, random_state=0),
        "linear": make_pipeline(StandardScaler(), LogisticRegression()),
    }
    for name, model in models.items():
        print(f"{name}: accuracy {model.fit(known, answers).score(unseen, expected):.3f} on unseen tumours")
    joblib.dump(models, FILE)


if __name__ == "__main__":
    main()
