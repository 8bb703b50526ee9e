/* The test of sieve.c: the counts of primes below powers of ten are well known. */
#include "sieve.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    static const struct { size_t limit, primes; } known[] = {
        {0, 0}, {1, 0}, {2, 0}, {3, 1}, {10, 4}, {100, 25}, {1000, 168}, {100000, 9592}, {1000000, 78498},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        unsigned char *composite = malloc(known[i].limit + 1);
        size_t primes = 0;
        if (!composite)
            return 1;
        sieve(composite, known[i].limit);
        for (size_t n = 0; n < known[i].limit; n++)
            primes += !composite[n];
        free(composite);
        printf("%zu primes below %zu: %s\n", primes, known[i].limit, primes == known[i].primes ? "right" : "WRONG");
        if (primes != known[i].primes)
            return 1;
    }
    return 0;
}
