/* A planted data race: `make canary` passes only if ThreadSanitizer reports it. */
#include <pthread.h>
#include <stdlib.h>

static volatile int shared_count;

static void *count_up(void *unused)
{
    for (int i = 0; i < 1000; i++)
        shared_count++;
    return unused;
}

int main(void)
{
    pthread_t other;

    if (pthread_create(&other, NULL, count_up, NULL) != 0)
        return EXIT_FAILURE;
    count_up(NULL);
    pthread_join(other, NULL);
    return EXIT_SUCCESS;
}
