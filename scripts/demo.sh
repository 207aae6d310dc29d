#!/usr/bin/env bash
# bash scripts/demo.sh: sets up what is missing, then the whole pipeline on the drawn films of data/phantoms.
# Everything it writes goes to demo/; delete that folder to start over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt

python=.venv/bin/python
for file in models/unet/efficientnetb0.weights.h5 models/lungs_small_1.weights.h5; do
    if [ ! -f "$file" ]; then
        echo "demo: $file is missing; it is part of the repository: get it again with git checkout -- models" >&2
        exit 1
    fi
done

echo "== 1 of 3: the U-Net finds the lungs, the first labels"
"$python" create_dataset.py --src data/phantoms --out demo/dataset
echo "== 2 of 3: a tiny Mask R-CNN learns from them, to show that training runs"
"$python" train.py --config lungs_demo --out demo/models --runs demo/runs
echo "== 3 of 3: the trained networks of models/ find both lungs and vote"
"$python" inference.py --src data/phantoms --out demo/results

cat <<'END'
Done. Look at
  demo/results/overlays/          every film beside the lungs found on it
  demo/results/measurements.csv   a row a film: scores, agreement, areas, boxes
  demo/results/masks/             0 background, 1 left lung, 2 right lung (the patient's)
  demo/dataset/dataset.json       the COCO dataset of step 1
  demo/models/                    the network of step 2; its curves: .venv/bin/python -m tensorboard.main --logdir demo/runs
END
