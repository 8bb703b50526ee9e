/* Prints the primes below a number. */
#include "sieve.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    char *end;
    long limit = argc == 2 ? strtol(argv[1], &end, 10) : -1;
    if (limit < 0 || limit > 100000000 || *end) {
        fprintf(stderr, "usage: primes LIMIT\n");
        return 2;
    }
    unsigned char *composite = malloc((size_t)limit + 1);
    if (!composite)
        return 1;
    sieve(composite, (size_t)limit);
    for (long n = 0; n < limit; n++)
        if (!composite[n])
            printf("%ld\n", n);
    free(composite);
    return 0;
}
