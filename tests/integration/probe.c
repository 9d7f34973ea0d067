/* A program that does what its first argument says: the subject of the sandbox's tests. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const long MB = 1 << 20;

static void wait_for_ever(void) {
    for (;;) pause();
}

static void touch(long bytes) {
    memset(malloc(bytes), 1, bytes);
}

static void say(const char *what, int result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
}

static int print_file(const char *path) {
    char buffer[65536];
    size_t count;
    FILE *file = path ? fopen(path, "r") : stdin;
    if (!file) return perror(path), 1;
    while ((count = fread(buffer, 1, sizeof buffer, file))) fwrite(buffer, 1, count, stdout);
    return 0;
}

/* Writes until it cannot; says how much and why it ended. */
static int fill(const char *path) {
    static char block[65536];
    long written = 0;
    ssize_t count;
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    signal(SIGXFSZ, SIG_IGN);
    if (file < 0) return say(path, -1), 0;
    while ((count = write(file, block, sizeof block)) > 0) written += count;
    printf("%ld %s\n", written, strerrorname_np(errno));
    return 0;
}

static int flood(long bytes, int file) {
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (; bytes > 0; bytes -= sizeof block) (void)!write(file, block, sizeof block);
    return 0;
}

static void *touch_and_wait(void *bytes) {
    usleep(50000); /* the main thread ends first */
    touch((long)bytes);
    wait_for_ever();
    return NULL;
}

static void *wait_in_thread(void *unused) {
    wait_for_ever();
    return unused;
}

static int start_threads(int count) {
    pthread_t thread;
    for (int number = 0; number < count; number++) pthread_create(&thread, NULL, wait_in_thread, NULL);
    wait_for_ever();
    return 0;
}

static int fork_all(int count, long bytes, useconds_t naps) {
    for (int number = 0; number < count; number++)
        if (fork() == 0) {
            touch(bytes);
            usleep(naps);
            _exit(0);
        }
    while (wait(NULL) > 0) continue;
    return 0;
}

/* Ends by itself far beyond every limit: a test that fails must not take the machine with it. */
static int bomb(void) {
    int *forks = mmap(NULL, sizeof *forks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (__atomic_add_fetch(forks, 1, __ATOMIC_SEQ_CST) < 2000) fork();
    wait_for_ever();
    return 0;
}

static int daemonize(void) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            for (int file = 0; file < 3; file++) close(file);
            wait_for_ever();
        }
        _exit(0);
    }
    wait(NULL);
    return 0;
}

static int crowd(int count) {
    for (; count > 0; count--)
        if (fork() == 0) {
            for (int file = 0; file < 3; file++) close(file);
            wait_for_ever();
        }
    return 0;
}

static int reach(const char *address, int port) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &there.sin_addr);
    return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&there, sizeof there);
}

static int write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) return perror(path), 1;
    fputs(text, file);
    return fclose(file);
}

static int network(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int server = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, "127.0.0.1", &here.sin_addr);
    bind(server, (struct sockaddr *)&here, sizeof here);
    listen(server, 1);
    say("loopback", reach("127.0.0.1", 8080));
    say("elsewhere", reach("192.0.2.1", 80));
    return 0;
}

static int print_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder));)
        if (atoi(entry->d_name) != dirfd(folder) && *entry->d_name != '.') puts(entry->d_name);
    return 0;
}

static int forbidden(void) {
    struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
    say("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    say("add_key", syscall(SYS_add_key, "user", "name", "x", 1, -3));
    say("unshare", unshare(CLONE_NEWUSER));
    say("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    say("chroot", chroot("/tmp"));
    say("setrlimit", setrlimit(RLIMIT_FSIZE, &more));
    return 0;
}

static int parent_death_signal(void) {
    int now = 0;
    say("set", prctl(PR_SET_PDEATHSIG, 0));
    prctl(PR_GET_PDEATHSIG, &now);
    printf("%d\n", now);
    fflush(stdout);
    return 0;
}

static int fake_status(void) {
    const char *lie = "{ \"exit-code\": 0 }\n";
    for (int file = 3; file < 256; file++) (void)!write(file, lie, strlen(lie));
    fputs("bwrap: execvp /probe: No such file or directory\n", stderr);
    return 3;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "hello";
    const char *first = argc > 2 ? argv[2] : NULL;
    long number = first ? atol(first) : 0;
    char folder[4096];

    if (!strcmp(what, "hello")) return puts("Hello, world!"), 0;
    if (!strcmp(what, "args")) return ({ for (int at = 0; at < argc; at++) puts(argv[at]); }), 0;
    if (!strcmp(what, "env")) return ({ for (char **at = environ; *at; at++) puts(*at); }), 0;
    if (!strcmp(what, "pwd")) return puts(getcwd(folder, sizeof folder)), 0;
    if (!strcmp(what, "pid")) return printf("%d %d %d\n", getpid(), getppid(), getuid()), 0;
    if (!strcmp(what, "cat")) return print_file(first);
    if (!strcmp(what, "say")) return fputs(first, stderr), 0;
    if (!strcmp(what, "exit")) return number;
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "crash")) return *(volatile int *)number;
    if (!strcmp(what, "kill")) return say("kill", kill(getpid(), number)), 0;
    if (!strcmp(what, "open")) return say("open", open(first, O_WRONLY)), 0;
    if (!strcmp(what, "kill-group")) return say("kill", kill(0, number)), 0;
    if (!strcmp(what, "fill")) return fill(first);
    if (!strcmp(what, "flood")) return flood(number, 1), flood(number, 2);
    if (!strcmp(what, "hog")) return touch(number * MB), wait_for_ever(), 0;
    if (!strcmp(what, "take")) return touch(number * MB), 0;
    if (!strcmp(what, "nap")) return usleep(number * 1000), 0;
    if (!strcmp(what, "bare")) return syscall(SYS_exit, 0), 0;
    if (!strcmp(what, "hogs")) return fork_all(8, number * MB, 60000000);
    if (!strcmp(what, "share")) return touch(number * MB), fork_all(8, 0, 200000);
    if (!strcmp(what, "bomb")) return bomb();
    if (!strcmp(what, "threads")) return start_threads(number);
    if (!strcmp(what, "daemon")) return daemonize();
    if (!strcmp(what, "wait")) return wait_for_ever(), 0;
    if (!strcmp(what, "daemon-wait")) return daemonize(), wait_for_ever(), 0;
    if (!strcmp(what, "silent")) return close(1), close(2), wait_for_ever(), 0;
    if (!strcmp(what, "network")) return network();
    if (!strcmp(what, "connect")) return say("connect", reach("127.0.0.1", number)), 0;
    if (!strcmp(what, "write")) return write_file(first, argv[3]);
    if (!strcmp(what, "descriptors")) return print_descriptors();
    if (!strcmp(what, "forbidden")) return forbidden();
    if (!strcmp(what, "lie")) return fake_status();
    if (!strcmp(what, "lie-wait")) return fake_status(), wait_for_ever(), 0;
    if (!strcmp(what, "crowd")) return crowd(number);
    if (!strcmp(what, "outlive")) return parent_death_signal(), wait_for_ever(), 0;
    if (!strcmp(what, "parent-death")) return parent_death_signal();
    if (!strcmp(what, "stubborn")) {
        for (int signum = 1; signum < 32; signum++) signal(signum, SIG_IGN);
        wait_for_ever();
    }
    if (!strcmp(what, "headless")) {
        pthread_t thread;
        pthread_create(&thread, NULL, touch_and_wait, (void *)(number * MB));
        syscall(SYS_exit, 0);
    }
    return fprintf(stderr, "probe: %s?\n", what), 64;
}
