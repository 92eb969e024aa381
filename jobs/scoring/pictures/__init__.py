"""A library of metrics of generated pictures: FID, KID, CLIPScore, GenEval and DPG-bench. No command reaches it.

They take what detectors and feature networks, which you supply, have made of the pictures; no weights are fetched. To
compare two sets of pictures by their features, a row for each picture:

    from jobs.scoring.pictures.fid_kid import frechet_distance, gaussian

    frechet_distance(gaussian(real), gaussian(generated))
"""
