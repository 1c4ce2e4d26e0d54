"""`make bench-tiny`: the scores of the tiny models on held-out scenes, as one JSON line on stdout.

What was measured when the weights were committed stands in models/tiny/scores.json; this measures anew.
"""

import argparse
import json
import sys
import time
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "models" / "tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=128, help="held-out scenes for sd15-tiny (default 128)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(MODELS))
    import blip2_scores
    from training import scores

    began = time.monotonic()
    found: dict[str, object] = {"sd15-tiny": scores.measure(MODELS, arguments.scenes)}
    found["blip2-tiny"] = blip2_scores.scores()
    found["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
