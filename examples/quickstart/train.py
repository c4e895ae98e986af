"""Learn handwritten digits, and write what the model knows to digits.npz beside this file."""

import numpy as np
from model import FILE, Digits
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main():
    images, digits = load_digits(return_X_y=True)
    known, unseen, answers, expected = train_test_split(images, digits, random_state=0)
    np.savez(FILE, images=known, digits=answers, unseen=unseen)
    accuracy = np.mean(np.equal(Digits()(unseen), expected))
    print(f"accuracy {accuracy:.3f} on unseen digits; written to {FILE.name}")


if __name__ == "__main__":
    main()
