"""`maskrcnn predict --save` writes the formats of labelling tools for a folder of images."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import yaml
from commands import Run

from maskrcnn import open_model, read_image

NAMES = ("1.jpg", "2.png", "sub/10.jpg")


def test_every_format_holds_every_object_of_every_image(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--save", "labelme,geojson,yolo,cvat,csv", "--score", "0.2", "--batch", "2")
    ran = run("predict", model_file, photographs, "--out", out, *options)
    assert ran.code == 0
    images = [read_image(photographs / name) for name in NAMES]
    found = {
        name: each.above(0.2)
        for name, each in zip(NAMES, open_model(model_file, batch=2)(images), strict=True)
    }
    assert sum(map(len, found.values())) > 100
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    root = ElementTree.parse(out / "annotations.xml").getroot()
    shapes = {image.attrib["name"]: list(image) for image in root.iterfind("image")}
    for name, detections in found.items():
        stem = name.rpartition(".")[0]
        features = json.loads((out / f"{stem}.geojson").read_text())["features"]
        assert [feature["properties"]["name"] for feature in features] == detections.names()
        labelme = json.loads((out / "labelme" / f"{stem}.json").read_text())
        assert {shape["label"] for shape in labelme["shapes"]} == set(detections.names())
        lines = (out / "labels" / f"{stem}.txt").read_text().splitlines()
        with_pixels = detections.masks().any(axis=(1, 2))
        assert [int(line.split()[0]) for line in lines] == detections.labels[with_pixels].tolist()
        assert [shape.attrib["label"] for shape in shapes[name]] == detections.names()
        areas = [int(row["area"]) for row in rows if row["file_name"] == name]
        assert areas == np.count_nonzero(detections.masks(), axis=(1, 2)).tolist()
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "cat", 1: "dog", 2: "cow"}


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out", "--save", "csv,tsv")
    assert ran.code == 2
    assert "there is no `tsv`" in ran.err
    assert "image, json, coco, masks, labelme, geojson, yolo, cvat, csv" in ran.err
    assert not (tmp_path / "out").exists()
