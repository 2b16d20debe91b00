#ifndef SUPERVISOR_ORPHANS_H
#define SUPERVISOR_ORPHANS_H

/*
 * Processes whose parent ended come to the supervisor: as PID 1 anyway, else as a child subreaper
 * (prctl(2)). So nothing that was started below a program escapes, and nothing becomes a zombie.
 */

/* Take them from now on. */
void orphans_adopt(void);
/* Signal every child that is there; how many. Reads /proc: for the end of a pod, not for every
 * turn. */
unsigned orphans_signal(int number);

#endif
