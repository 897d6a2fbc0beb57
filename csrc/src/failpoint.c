#include "failpoint.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Atomic int fb_failpoint_armed;
static char armed_name[64];
static int armed_signal;
static _Atomic int passes_left;

void fb_failpoint_load(void)
{
    const char *text = getenv("FOREBAY_FAILPOINT");
    char action[16];
    int nth = 1;
    atomic_store(&fb_failpoint_armed, 0);
    if (text == NULL || sscanf(text, "%63[^=]=%15[a-z]@%d", armed_name, action, &nth) < 2)
        return;
    armed_signal = strcmp(action, "stop") == 0 ? SIGSTOP : SIGKILL;
    atomic_store(&passes_left, nth);
    atomic_store(&fb_failpoint_armed, 1);
}

void fb_failpoint_hit(const char *name)
{
    if (strcmp(name, armed_name) != 0 || atomic_fetch_sub(&passes_left, 1) != 1)
        return;
    raise(armed_signal);
    /* The first process of a PID namespace is spared its own SIGKILL. */
    if (armed_signal == SIGKILL)
        _exit(128 + SIGKILL);
}
