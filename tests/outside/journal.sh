#!/usr/bin/env bash
# Two accounting programs over the exported journal of a running cloud.
#
# Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Each program
# must also refuse a copy in which one amount was changed by a nano-unit, or its yes means nothing.
# Reads SUBLET_API_BASE and SUBLET_OPERATOR_KEY; writes to SUBLET_OUT.
set -uo pipefail
root=${SUBLET_API_BASE%/v1}
failed=0

verdict() { # NAME STATUS WHY
    if [ "$2" = 0 ]; then echo "ok $1"; else failed=1 && echo "FAIL $1: $(tr '\n' ' ' <<<"$3" | head -c 600)"; fi
}
export_journal() { # FORMAT
    curl --silent --show-error --fail --max-time 120 --output "$SUBLET_OUT/journal.$1" \
        --header "authorization: Bearer $SUBLET_OPERATOR_KEY" "$root/operator/v1/ledger/export?format=$1"
}
# Changes the last digit of the last posting's amount.
falsify() { # FORMAT
    local line
    line=$(grep -nE '^ +[A-Za-z].* -?[0-9]+\.[0-9]{9} [A-Z]{3}$' "$SUBLET_OUT/journal.$1" | tail -n 1 | cut -d : -f 1)
    sed -E "${line}{s/9 ([A-Z]{3})\$/1 \1/;t;s/[0-8] ([A-Z]{3})\$/9 \1/}" "$SUBLET_OUT/journal.$1" >"$SUBLET_OUT/falsified.$1"
}
judge() { # FORMAT COMMAND…
    local format=$1 output
    shift
    output=$(export_journal "$format" 2>&1)
    verdict "the journal is exported for $format" $? "$output"
    output=$(grep -cE '^[0-9]{4}-[0-9]{2}-[0-9]{2} [*!]' "$SUBLET_OUT/journal.$format")
    [ "$output" -gt 10 ]
    verdict "the journal for $format has entries" $? "only $output"
    output=$("$@" "$SUBLET_OUT/journal.$format" 2>&1)
    verdict "$1 accepts the journal" $? "$output"
    output=$(falsify "$format" && ! cmp --silent "$SUBLET_OUT/journal.$format" "$SUBLET_OUT/falsified.$format" && ! "$@" "$SUBLET_OUT/falsified.$format" 2>&1)
    verdict "$1 refuses a falsified journal" $? "it accepted a wrong amount $output"
}

judge beancount bean-check
judge hledger hledger check --strict --file

exit "$failed"
