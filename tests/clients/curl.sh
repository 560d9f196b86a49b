#!/usr/bin/env bash
# The plainest client: curl and jq against a running cloud.
#
# Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed.
# Reads SUBLET_API_BASE, SUBLET_PROJECT_KEY, SUBLET_ADMIN_KEY and SUBLET_MODEL.
set -uo pipefail
base=$SUBLET_API_BASE root=${SUBLET_API_BASE%/v1} key=$SUBLET_PROJECT_KEY model=$SUBLET_MODEL
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# call METHOD PATH [curl options]: leaves the status in $status, the body in $folder/body.
call() {
    local method=$1 path=$2
    shift 2
    status=$(curl -sS --max-time 60 -X "$method" -o "$folder/body" -D "$folder/headers" -w '%{http_code}' "$@" "$path")
}
# chat BODY [curl options]: posts to the chat route with the project's key.
chat() {
    local body=$1
    shift
    call POST "$base/chat/completions" -H "authorization: Bearer $key" -H 'content-type: application/json' -d "$body" "$@"
}
# want NAME STATUS [jq test]: judges the last answer.
want() {
    local name=$1 expected=$2 filter=${3:-true}
    if [ "$status" != "$expected" ]; then
        failed=1
        echo "FAIL $name: status $status, want $expected: $(head -c 300 "$folder/body" | tr '\n' ' ')"
    elif ! jq -e "$filter" "$folder/body" >/dev/null 2>&1; then
        failed=1
        echo "FAIL $name: not $filter: $(head -c 300 "$folder/body" | tr '\n' ' ')"
    else
        echo "ok $name"
    fi
}
# claim NAME COMMAND…: judges by a command's status.
claim() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else failed=1 && echo "FAIL $name: $* (headers: $(tr '\r\n' '  ' <"$folder/headers"))"; fi
}

question='"messages":[{"role":"user","content":"Name three colours."}]'
shape='.error | has("message") and has("type") and has("param") and (.code | type == "string")'

for path in /healthz /health /readyz; do
    call GET "$root$path"
    want "$path answers without a key" 200
done
call GET "$root/openapi.json"
want 'the API describes itself' 200 '.paths | has("/v1/chat/completions")'
call GET "$root/metrics"
claim 'figures are served' [ "$status" = 200 ]

chat "{\"model\":\"$model\",$question,\"max_tokens\":8}"
want 'a chat is answered' 200 '.choices[0].message.content | length > 0'
claim 'an answer names its request' grep -qi '^x-request-id: req_' "$folder/headers"
call POST "$base/chat/completions" -H "x-api-key: $key" -H 'content-type: application/json' -d "{\"model\":\"$model\",$question,\"max_tokens\":2}"
want 'a key in x-api-key works' 200
for prefix in "$root" "$root/openai/v1"; do
    call GET "$prefix/models" -H "authorization: Bearer $key"
    want "models are listed at ${prefix#"$root"}/models" 200 '.data | length > 0'
done

chat "{\"model\":\"$model\",$question,\"max_tokens\":8,\"stream\":true,\"stream_options\":{\"include_usage\":true}}" -N
claim 'a stream is one of events' grep -qi '^content-type: text/event-stream' "$folder/headers"
claim 'a stream is not cached' grep -qi '^cache-control: no-cache' "$folder/headers"
claim 'a stream ends with DONE' [ "$(grep '^data:' "$folder/body" | tail -n 1)" = 'data: [DONE]' ]
grep '^data: {' "$folder/body" | cut -c 7- | jq -s . >"$folder/events"
mv "$folder/events" "$folder/body"
want 'the first event has the role' 200 '.[0].choices[0].delta == {"role":"assistant","content":""}'
want 'usage comes last, once, without choices' 200 '(.[-1].choices == []) and (.[-1].usage.completion_tokens > 0) and ([.[:-1][] | .usage] | all(. == null))'
want 'one reason ends the stream' 200 '[.[].choices[]?.finish_reason | select(. != null)] | length == 1'

call GET "$base/models"
want 'no key is refused' 401 "$shape"
call GET "$base/models" -H 'authorization: Bearer sk-sub-unknown'
want 'an unknown key is refused' 401 '.error.code == "invalid_api_key"'
call GET "$base/models" -H "authorization: Bearer $SUBLET_ADMIN_KEY"
want 'a key of another plane is refused' 403 '.error.code == "wrong_key_plane"'
chat '{"model":'
want 'a broken body is refused' 400 '.error.code == "invalid_json"'
chat '[1,2]'
want 'a body that is no object is refused' 400 '.error.code == "invalid_json"'
chat "{\"model\":\"no-such-model\",$question}"
want 'an unknown model is refused' 404 '.error.code == "model_not_found"'
chat "{\"model\":\"$model\"}"
want 'a missing field is named' 400 '.error.param == "messages"'
call POST "$base/nope" -H "authorization: Bearer $key"
want 'an unknown route is refused' 404 '.error.code == "unknown_url"'
call PUT "$base/chat/completions" -H "authorization: Bearer $key"
want 'a wrong method is refused' 405 "$shape"
head -c 12000000 /dev/zero | tr '\0' 'a' >"$folder/large"
chat "@$folder/large"
want 'a huge body is refused' 413 "$shape"

id=idem-$$-$RANDOM
chat "{\"model\":\"$model\",$question,\"max_tokens\":2}" -H "idempotency-key: $id"
want 'a request with an idempotency key is served' 200
chat "{\"model\":\"$model\",$question,\"max_tokens\":2}" -H "idempotency-key: $id"
want 'its repeat is refused and not charged' 409 '.error.code == "already_served"'
chat "{\"model\":\"$model\",$question,\"max_tokens\":3}" -H "idempotency-key: $id"
want 'its key with another body is refused' 422 '.error.code == "idempotency_mismatch"'

# Limits of a key of its own.
admin() { # METHOD PATH [BODY]
    call "$1" "$base/organization$2" -H "authorization: Bearer $SUBLET_ADMIN_KEY" -H 'content-type: application/json' ${3:+-d "$3"}
}
small="{\"model\":\"$model\",$question,\"max_tokens\":2}"
with_key() { # KEY: asks with it
    call POST "$base/chat/completions" -H "authorization: Bearer $1" -H 'content-type: application/json' -d "$small"
}
call GET "$base/account" -H "authorization: Bearer $key"
want 'a key knows its project' 200 '.project | startswith("proj_")'
project=$(jq -r .project "$folder/body")
admin POST "/projects/$project/api_keys" '{"name":"slow","rate_limits":{"requests_per_minute":2}}'
want 'a key with a rate limit is made' 200 '.value | startswith("sk-sub-")'
slow=$(jq -r .value "$folder/body") slow_id=$(jq -r .id "$folder/body")
with_key "$slow"
want 'it serves at first' 200
claim 'an answer says what its limits leave' grep -qi '^x-ratelimit-limit-requests: 2' "$folder/headers"
with_key "$slow"
with_key "$slow"
want 'too many requests are refused' 429 '.error.code == "rate_limit_exceeded"'
claim 'a refusal says when to come back' grep -qiE '^retry-after: [0-9]+' "$folder/headers"
admin DELETE "/projects/$project/api_keys/$slow_id"
want 'a key is revoked' 200
with_key "$slow"
want 'a revoked key is refused at once' 401 '.error.code == "invalid_api_key"'

admin POST "/projects/$project/api_keys" '{"name":"poor"}'
poor=$(jq -r .value "$folder/body") poor_id=$(jq -r .id "$folder/body")
admin PUT "/projects/$project/api_keys/$poor_id/spend_limits/total" '{"amount":"0.000000001"}'
want 'a spend limit is set' 200
with_key "$poor"
want 'a key over its budget is refused' 429 '.error.code == "insufficient_quota" and .error.type == "insufficient_quota"'
claim 'clients are told not to retry' grep -qi '^x-should-retry: false' "$folder/headers"
admin POST "/projects/$project/api_keys" '{"name":"narrow","models":["another"]}'
with_key "$(jq -r .value "$folder/body")"
want 'a model that a key may not call is refused' 403 '.error.code == "model_not_allowed"'

exit "$failed"
