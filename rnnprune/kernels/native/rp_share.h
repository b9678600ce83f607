/* How rows or units are dealt out to threads. */
#ifndef RP_SHARE_H
#define RP_SHARE_H

#include "rp_types.h"

#define RP_SHARE_STEP 16 /* shares are cut at whole cache lines of floats, so that threads never write to the same one */

/* bounds[0 .. threads]: thread t gets [bounds[t], bounds[t + 1]), about equal sums of work[0 .. count - 1]. */
void rp_deal_out(const size_t *work, size_t count, size_t threads, size_t *bounds);

#endif
