#!/usr/bin/env bash
# Lets two programs that are not ours check an exported journal: beancount and hledger.
# Usage: ledger_judges.sh JOURNAL.beancount JOURNAL.hledger
# Fails if a program is missing, if it refuses the journal, or if it accepts a journal that
# was changed by the smallest unit: a judge that never refuses is no judge.
set -euo pipefail

if [ "$#" -ne 2 ]; then
    echo "usage: $0 JOURNAL.beancount JOURNAL.hledger" >&2
    exit 2
fi
beancount_journal=$1
hledger_journal=$2
BEAN_CHECK=${BEAN_CHECK:-bean-check}
HLEDGER=${HLEDGER:-hledger}

for tool in "$BEAN_CHECK" "$HLEDGER"; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 3; }
done
for journal in "$beancount_journal" "$hledger_journal"; do
    [ -s "$journal" ] || { echo "no journal: $journal" >&2; exit 2; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check_beancount() { "$BEAN_CHECK" --no-cache "$1"; }
check_hledger() { "$HLEDGER" check --strict -f "$1"; }

# Adds one nano-unit to the first positive posting, or to the last asserted balance.
change_posting() {
    awk '!done && $0 ~ /^ +[A-Za-z0-9:_-]+  [0-9]+\.[0-9]+ [A-Z][A-Z][A-Z]$/ {
             digit = substr($2, length($2)); other = (digit == "9") ? "8" : digit + 1
             sub(/[0-9] [A-Z][A-Z][A-Z]$/, other " " $3); done = 1
         } { print } END { exit !done }' "$1"
}
change_assertion() {
    awk '{ line[NR] = $0; if ($0 ~ /( balance | = )/) last = NR }
         END {
             if (!last) exit 1
             if (match(line[last], /(balance [^ ]+  -?|= -?)[0-9]+\.[0-9]+/) == 0) exit 1
             end = RSTART + RLENGTH - 1; digit = substr(line[last], end, 1)
             other = (digit == "9") ? "8" : digit + 1
             line[last] = substr(line[last], 1, end - 1) other substr(line[last], end + 1)
             for (i = 1; i <= NR; i++) print line[i]
         }' "$1"
}

judge() {
    local name=$1 journal=$2 check="check_$1"
    if ! "$check" "$journal" >"$work/report" 2>&1; then
        echo "$name refuses the journal:" >&2
        head -n 40 "$work/report" >&2
        exit 1
    fi
    for change in change_posting change_assertion; do
        "$change" "$journal" >"$work/changed.$name" || { echo "$change found nothing to change in $journal" >&2; exit 1; }
        cmp -s "$journal" "$work/changed.$name" && { echo "$change changed nothing" >&2; exit 1; }
        if "$check" "$work/changed.$name" >/dev/null 2>&1; then
            echo "$name accepts a journal that was changed by one nano-unit ($change)" >&2
            exit 1
        fi
    done
    echo "$name accepts the journal, and refuses it changed by one nano-unit"
}

judge beancount "$beancount_journal"
judge hledger "$hledger_journal"
