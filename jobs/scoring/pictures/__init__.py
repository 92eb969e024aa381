"""A library of metrics of generated pictures: FID, KID, CLIPScore, GenEval and DPG-bench. No command reaches it.

They take what detectors and feature networks, which you supply, have made of the pictures; no weights are fetched. FID
of two sets of pictures, for example, takes their features, a row for each picture:

>>> from jobs.scoring.pictures.fid_kid import frechet_distance, gaussian
>>> real, generated = [[0.0], [2.0]], [[5.0], [7.0]]
>>> frechet_distance(gaussian(real), gaussian(generated))
25.0
"""
