#ifndef SIEVE_H
#define SIEVE_H

#include <stddef.h>

/* Marks the composite numbers below `limit`: composite[n] is 1 for each of them (and for 0 and 1), 0 for primes. */
void sieve(unsigned char *composite, size_t limit);

#endif
