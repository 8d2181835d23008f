/* SPDX-License-Identifier: Apache-2.0 */
/* Says at the end of a program how often its parallel calls were made and how many threads are alive. */
#include <dirent.h>
#include <stdio.h>

extern unsigned long parallel_calls;

__attribute__((destructor)) static void say(void)
{
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;)
        threads += task->d_name[0] != '.';
    fprintf(stderr, "#calls %lu\n#threads %d\n", parallel_calls, threads);
}
