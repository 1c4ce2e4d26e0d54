#!/bin/sh
# A picture through the A1111 REST API: txt2img.sh [PROMPT] [FILE]. Needs curl, and python3 for JSON and base64.
set -eu
prompt=${1:-a large red circle on a brick wall}
file=${2:-picture.png}
body=$(python3 -c 'import json, sys; print(json.dumps({"prompt": sys.argv[1], "steps": 20, "seed": 1}))' "$prompt")
answer=$(curl --silent --show-error --fail-with-body \
  --header "Authorization: Bearer $DARKROOM_TOKEN" --header "Content-Type: application/json" --data "$body" \
  "$DARKROOM_HTTP/sdapi/v1/txt2img") || { echo "$answer" >&2; exit 1; }
mkdir -p "$(dirname "$file")"
printf %s "$answer" |
  python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["images"][0]))' > "$file"
echo "$file"
