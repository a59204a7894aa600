/* point: named places inside critical sections, where a test build can be made to stop or die.
 *
 * Built with --enable-test-points, COMPOSURE_POINT=name:kill[:n] (or :stop) sends the process SIGKILL (SIGSTOP) when it
 * comes to that place for the n-th time. In every other build a point is nothing.
 */
#ifndef COMPOSURE_POINT_H
#define COMPOSURE_POINT_H

#ifdef TEST_POINTS
void shm_point(const char *name);
#else
#define shm_point(name) ((void)0)
#endif

#endif
