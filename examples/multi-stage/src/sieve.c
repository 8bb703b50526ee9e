#include "sieve.h"

#include <string.h>

void sieve(unsigned char *composite, size_t limit)
{
    memset(composite, 0, limit);
    for (size_t n = 0; n < limit && n < 2; n++)
        composite[n] = 1;
    for (size_t n = 2; n < limit && n * n < limit; n++) {
        if (composite[n])
            continue;
        for (size_t multiple = n * n; multiple < limit; multiple += n)
            composite[multiple] = 1;
    }
}
