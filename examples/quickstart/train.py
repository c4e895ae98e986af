"""Train the digits classifier and write it to digits.joblib beside this file."""

from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

FILE = Path(__file__).with_name("digits.joblib")


def main():
    images, digits = load_digits(return_X_y=True)
    known, unseen, answers, expected = train_test_split(images, digits, random_state=0)
    forest = RandomForestClassifier(n_estimators=100, random_state=0).fit(known, answers)
    joblib.dump(forest, FILE)
    print(f"accuracy {forest.score(unseen, expected):.3f} on unseen digits; written to {FILE.name}")


if __name__ == "__main__":
    main()
