#include "rp_share.h"

void rp_deal_out(const size_t *work, size_t count, size_t threads, size_t *bounds) {
    size_t total = 0, sum = 0, next = 1;
    for (size_t i = 0; i < count; i++) total += work[i];
    bounds[0] = 0;
    for (size_t i = 0; i < count && next < threads; i++) {
        bool may_cut = i % RP_SHARE_STEP == 0;
        while (may_cut && next < threads && sum * threads >= total * next) bounds[next++] = i;
        sum += work[i];
    }
    while (next <= threads) bounds[next++] = count;
}
