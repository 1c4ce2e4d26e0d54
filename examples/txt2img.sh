#!/bin/sh
# A picture through the A1111 REST API. Needs curl and python3 (to decode the picture). Usage: txt2img.sh [PROMPT] [FILE]
set -eu
prompt=${1:-a large red circle on a brick wall}
file=${2:-picture.png}
curl --silent --show-error --fail-with-body \
  --header "Authorization: Bearer $DARKROOM_TOKEN" --json "{\"prompt\": \"$prompt\", \"steps\": 20, \"seed\": 1}" \
  "$DARKROOM_HTTP/sdapi/v1/txt2img" |
  python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["images"][0]))' > "$file"
echo "$file"
