/* Preloaded into the daemon: CLOCK_REALTIME is shifted by the seconds that the file $PLANTAIN_CLOCK holds. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    const char *path = getenv("PLANTAIN_CLOCK");
    FILE *file;
    long long shift = 0;
    int ended = syscall(SYS_clock_gettime, clock, time);

    if (clock != CLOCK_REALTIME || path == NULL || (file = fopen(path, "r")) == NULL)
        return ended;
    if (fscanf(file, "%lld", &shift) == 1)
        time->tv_sec += shift;
    fclose(file);
    return ended;
}
