"""Makes the Keras fixtures of this folder; needs tensorflow and scikit-learn."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import joblib
import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent


def main() -> None:
    keras.utils.set_random_seed(20221)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((7, 8)),
            layers.Bidirectional(layers.LSTM(64, activation="relu"), name="bidirectional_1"),
            layers.Dropout(0.5),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(np.asarray(weight) + rng.normal(0, 0.15, weight.shape).astype("f4"))
    flux = rng.lognormal(3, 3, (60, 8))
    flux[rng.random((60, 8)) < 0.2] = 0
    flux[rng.random((60, 8)) < 0.05] = -999
    features = np.log(np.where(flux <= 0, np.array([0.01, 100.0] * 4), flux) + 0.001)
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features).astype("f4")
    probability = model.predict(np.stack([scaled[i : i + 7] for i in range(54)]), verbose=0)
    arrays = {w.path.replace("/", "."): np.asarray(w) for w in model.trainable_variables}
    np.savez_compressed(
        HERE / "keras_bilstm.npz",
        **arrays,
        scaler_mean=scaler.mean_,
        scaler_scale=scaler.scale_,
        flux=flux.astype("f4"),
        probability=probability,
    )
    joblib.dump(scaler, HERE / "scaler.joblib")
    with tempfile.TemporaryDirectory() as scratch:
        model.export(scratch, verbose=False)
        shutil.copytree(
            Path(scratch) / "variables",
            HERE / "keras_saved_model" / "variables",
            dirs_exist_ok=True,
        )


if __name__ == "__main__":
    main()
