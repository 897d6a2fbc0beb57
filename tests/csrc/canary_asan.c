/* A planted use after free: `make canary` passes only if AddressSanitizer reports it. The pointers are
 * volatile, or the compiler would see and remove the error. */
#include <stdlib.h>

#pragma GCC diagnostic ignored "-Wuse-after-free"

int main(void)
{
    char *volatile block = malloc(16);
    volatile char byte;

    if (block == NULL)
        return EXIT_FAILURE;
    block[0] = 1;
    free(block);
    byte = block[0];
    (void)byte;
    return EXIT_SUCCESS;
}
