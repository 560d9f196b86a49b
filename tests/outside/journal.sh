#!/usr/bin/env bash
# Two accounting programs over the journal of a running cloud, and over that of a simulated month.
#
# Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. The programs
# must also refuse journals that were changed by a nano-unit (ledger_judges.sh sees to that).
# Reads SUBLET_API_BASE, SUBLET_OPERATOR_KEY; writes to SUBLET_OUT. The month is left in target/tmp
# by the tests of sublet-money, the books of a simulated cloud by the simulation of sublet-cloud.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
judges=$here/crates/sublet-money/tests/outside/ledger_judges.sh
failed=0

verdict() { # NAME STATUS WHY
    if [ "$2" = 0 ]; then echo "ok $1"; else failed=1 && echo "FAIL $1: $(tr '\n' ' ' <<<"$3" | head -c 600)"; fi
}

for format in beancount hledger; do
    why=$(curl --silent --show-error --fail --max-time 120 --output "$SUBLET_OUT/journal.$format" \
        --header "authorization: Bearer $SUBLET_OPERATOR_KEY" \
        "${SUBLET_API_BASE%/v1}/operator/v1/ledger/export?format=$format" 2>&1)
    verdict "the journal is exported for $format" $? "$why"
    entries=$(grep -cE '^[0-9]{4}-[0-9]{2}-[0-9]{2} [*!]' "$SUBLET_OUT/journal.$format")
    [ "$entries" -gt 10 ]
    verdict "the journal for $format has entries" $? "only $entries"
done
why=$(bash "$judges" "$SUBLET_OUT/journal.beancount" "$SUBLET_OUT/journal.hledger" 2>&1)
verdict 'bean-check and hledger accept the journal of a running cloud' $? "$why"
why=$(bash "$judges" "$here/target/tmp/busy-month.beancount" "$here/target/tmp/busy-month.hledger" 2>&1)
verdict 'bean-check and hledger accept a simulated month' $? "$why"
why=$(bash "$judges" "$here/target/tmp/simulated-month.beancount" "$here/target/tmp/simulated-month.hledger" 2>&1)
verdict 'bean-check and hledger accept the books of a simulated cloud' $? "$why"

exit "$failed"
