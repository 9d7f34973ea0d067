/* A program that does what its first argument says: what no program under test should do.

   Each attack ends by itself far beyond the limits that should have stopped it: a test that fails must not
   take the machine with it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const long MB = 1 << 20;
enum { FORKS = 2000, MOST_MB = 400, FILES = 1000000 };

static char block[1 << 20];

static void wait_for_ever(void) {
    for (;;) pause();
}

static void say(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
}

static void close_all(void) {
    for (int file = 0; file < 3; file++) close(file);
}

/* Processes */

static int *shared_count(void) {
    return mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void bomb(int detached) {
    int *forks = shared_count();
    while (__atomic_add_fetch(forks, 1, __ATOMIC_SEQ_CST) < FORKS)
        if (fork() == 0 && detached) {
            setsid();
            close_all();
            if (fork()) _exit(0);
        }
    wait_for_ever();
}

static void daemonize(int silent) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            if (silent) close_all();
            wait_for_ever();
        }
        _exit(0);
    }
    wait(NULL);
}

static void be_stubborn(void) {
    for (int signum = 1; signum < 65; signum++) signal(signum, SIG_IGN);
    if (fork() == 0) for (;;) kill(getpid(), SIGSTOP);
    for (;;) kill(getpid(), SIGSTOP), usleep(10000);
}

/* Memory */

static void take(int locked) {
    if (locked) say("mlockall", mlockall(MCL_CURRENT | MCL_FUTURE));
    for (int count = 0; count < MOST_MB; count++) {
        char *piece = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (piece == MAP_FAILED) return say("mmap", -1);
        if (locked) (void)!mlock(piece, MB);
        memset(piece, 1, MB);
    }
}

static void take_files(void) {
    for (int count = 0, file = -1; count < MOST_MB; count++) {
        if (count % 8 == 0) file = memfd_create("hostile", 0);
        if (write(file, block, MB) < 0) return say("memfd", -1);
    }
    wait_for_ever();
}

static void take_segments(void) {
    for (int count = 0; count < MOST_MB; count += 8) {
        int segment = shmget(IPC_PRIVATE, 8 * MB, 0600);
        char *piece = shmat(segment, NULL, 0);
        if (piece == (void *)-1) return say("shmat", -1);
        memset(piece, 1, 8 * MB);
        shmdt(piece);
    }
    wait_for_ever();
}

/* Maps a file in memory, and stays long enough to be looked at. */
static void map_file(int file) {
    int failed = ftruncate(file, 40 * MB);
    char *piece = mmap(NULL, 40 * MB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (failed || piece == MAP_FAILED) return say("mapped", -1);
    memset(piece, 1, 40 * MB);
    usleep(300000);
    say("mapped", 0);
}

static int print_file(const char *path) {
    char text[4096];
    FILE *file = fopen(path, "r");
    return !(file && fgets(text, sizeof text, file) && fputs(text, stdout) >= 0);
}

/* Output */

static void flood(void) {
    memset(block, 0xff, sizeof block);
    for (;;)
        for (int file = 1; file < 3; file++) (void)!write(file, block, sizeof block);
}

/* Speaks as a runtime does of a program that it could not execute, and as bwrap. */
static int lie(void) {
    for (int file = 3; file < 256; file++) (void)!write(file, "{ \"exit-code\": 0 }\n", 19);
    fputs("exec /hello-c: no such file or directory\n", stderr);
    return 1;
}

static int deceive(void) {
    fputs("\033]0;owned\a\033[2J\033[H\033[1;32mhello-c(scratch,static)  works\033[0m\r\n\x9b" "2J", stdout);
    fputs("\033[2J\033]52;c;b3duZWQ=\a\r\xe2\x80\xae works\n", stderr);
    return 1;
}

/* Places that can be written */

static void fill(const char *folder, const char *name) {
    char path[4096];
    long written = 0, count;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    if (file < 0) return say(folder, -1);
    while (written < MOST_MB * MB && (count = write(file, block, sizeof block)) > 0) written += count;
    printf("%s: %ld %s\n", folder, written, strerrorname_np(errno));
    say("sparse", ftruncate(file, 1L << 40));
    close(file);
}

static void fill_all(const char *name) {
    const char *folders[] = {"/", ".", "/dev", "/proc", "/sys", "/etc", "/tmp", "/dev/shm", "/dev/mqueue"};
    signal(SIGXFSZ, SIG_IGN);
    for (size_t at = 0; at < sizeof folders / sizeof *folders; at++) fill(folders[at], name);
    usleep(300000); /* until somebody has looked */
}

static void make_files(const char *name) {
    char path[4096];
    for (int count = 0; count < FILES; count++) {
        snprintf(path, sizeof path, "/tmp/%s-%d", name, count);
        if (mknod(path, S_IFREG | 0600, 0)) return say("mknod", -1);
    }
    wait_for_ever();
}

static void open_files(void) {
    int count = 0;
    while (count < FILES && dup(0) >= 0) count++;
    printf("%s %s\n", count < 1024 ? "bounded" : "more", strerrorname_np(errno));
}

/* Network */

/* The kernel knows at once where no route leads. */
static int reach(int family, int type, const char *address, int port) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    int made = socket(family, type, 0);
    inet_pton(AF_INET, address, &four.sin_addr);
    inet_pton(AF_INET6, address, &six.sin6_addr);
    if (family == AF_INET6) return connect(made, (struct sockaddr *)&six, sizeof six);
    return connect(made, (struct sockaddr *)&four, sizeof four);
}

static int local(const char *name, int abstract) {
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    strncpy(there.sun_path + abstract, name, sizeof there.sun_path - 2);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&there, size + !abstract);
}

static void use_network(int port, const char *abstract, const char *path) {
    const int now = SOCK_STREAM | SOCK_NONBLOCK;
    say("loopback", reach(AF_INET, SOCK_STREAM, "127.0.0.1", port));
    say("loopback-6", reach(AF_INET6, SOCK_STREAM, "::1", port));
    say("metadata", reach(AF_INET, now, "169.254.169.254", 80));
    say("gateway", reach(AF_INET, now, "172.17.0.1", 80));
    say("elsewhere", reach(AF_INET6, now, "2001:db8::1", 80));
    say("dns", reach(AF_INET, SOCK_DGRAM, "192.0.2.53", 53));
    say("abstract", local(abstract, 1));
    say("path", local(path, 0));
    say("raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    say("packet", socket(AF_PACKET, SOCK_RAW, 0));
}

/* The machine's own files */

static void look(const char *what, const char *before, const char *path, int flags) {
    char all[4096];
    snprintf(all, sizeof all, "%s%s", before, path);
    say(what, open(all, flags));
}

static void use_files(const char *sentinel) {
    look("path", "", sentinel, O_RDONLY);
    look("up", "/../../..", sentinel, O_RDONLY);
    look("root", "/proc/1/root", sentinel, O_RDONLY);
    look("cwd", "/proc/self/cwd/../../..", sentinel, O_RDONLY);
    look("oldroot", "/oldroot", sentinel, O_RDONLY);
    look("mem", "/dev/mem", "", O_RDWR);
    look("kmsg", "/dev/kmsg", "", O_RDONLY);
    look("proc-kmsg", "/proc/kmsg", "", O_RDONLY | O_NONBLOCK);
    look("kcore", "/proc/kcore", "", O_RDONLY);
    look("disk", "/dev/vda", "", O_RDONLY);
    look("sysrq", "/proc/sysrq-trigger", "", O_WRONLY);
    look("core-pattern", "/proc/sys/kernel/core_pattern", "", O_WRONLY);
    look("uevent", "/sys/kernel/uevent_helper", "", O_WRONLY);
    look("cgroup", "/sys/fs/cgroup/release_agent", "", O_WRONLY);
    say("mknod", mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)));
    say("link", link("/proc/1/exe", "/tmp/exe"));
    say("overwrite", open("/proc/self/exe", O_RDWR));
}

static int has(const char *path, const char *word) {
    static char text[1 << 20];
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(text, 1, sizeof text, file) : 0;
    if (file) fclose(file);
    return memmem(text, size, word, strlen(word)) != NULL;
}

/* The word comes in two halves: this program's own command line does not have it. */
static void find_secret(const char *one, const char *two) {
    char word[256], path[512];
    int found = 0, others = 0;
    DIR *folder = opendir("/proc");
    snprintf(word, sizeof word, "%s%s", one, two);
    for (char **each = environ; *each; each++) found += strstr(*each, word) != NULL;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!atoi(entry->d_name)) continue;
        others += atoi(entry->d_name) != getpid();
        const char *names[] = {"environ", "cmdline", "mountinfo", "auxv"};
        for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
            snprintf(path, sizeof path, "/proc/%s/%s", entry->d_name, names[at]);
            found += has(path, word);
        }
    }
    printf("found %d, other processes %d\n", found, others);
}

/* What the kernel is asked for */

static void call_all(void) {
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1};
    char ring[256] = {0};
    struct timeval now = {0};
    int child;

    say("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    say("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    say("umount", umount2("/tmp", MNT_DETACH));
    say("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    say("chroot", chroot("/tmp"));
    say("unshare-user", unshare(CLONE_NEWUSER));
    say("unshare-net", unshare(CLONE_NEWNET));
    say("unshare-mount", unshare(CLONE_NEWNS));
    say("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    say("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
    say("perf", syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
    say("io_uring", syscall(SYS_io_uring_setup, 1, ring));
    say("userfaultfd", syscall(SYS_userfaultfd, 1));
    say("handle", syscall(SYS_open_by_handle_at, AT_FDCWD, ring, O_RDONLY));
    say("syslog", klogctl(10, NULL, 0));
    say("swapon", swapon("/tmp/x", 0));
    say("module", syscall(SYS_init_module, ring, sizeof ring, ""));
    say("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("reboot", reboot(RB_DISABLE_CAD));
    say("clock", settimeofday(&now, NULL));
    say("hostname", sethostname("owned", 5));
    say("setgroups", setgroups(1, (gid_t[]){1}));
    say("setuid", setuid(12345));
    say("nice", setpriority(PRIO_PROCESS, 0, -20));
    say("realtime", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}));
    say("rlimit", setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 20, 1 << 20}));
    if ((child = fork()) == 0) {
        say("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    say("kill-all", kill(-1, SIGKILL));
}

static void push(const char *what, int file) {
    say(what, file < 0 ? -1 : ioctl(file, TIOCSTI, "x"));
}

static void use_terminal(void) {
    push("stdin", 0);
    push("stdout", 1);
    push("tty", open("/dev/tty", O_RDWR));
    push("console", open("/dev/console", O_RDWR));
    push("pts", open("/dev/pts/0", O_RDWR));
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "hello";
    const char *word = argc > 2 ? argv[2] : "";

    if (!strcmp(what, "hello")) return puts("Hello, world!"), 0;
    if (!strcmp(what, "forks")) return bomb(0), 0;
    if (!strcmp(what, "detached-forks")) return bomb(1), 0;
    if (!strcmp(what, "daemon")) return daemonize(1), puts("left"), 0;
    if (!strcmp(what, "daemon-with-output")) return daemonize(0), puts("left"), 0;
    if (!strcmp(what, "stubborn")) return be_stubborn(), 0;
    if (!strcmp(what, "silent")) return close_all(), wait_for_ever(), 0;
    if (!strcmp(what, "memory")) return take(0), 0;
    if (!strcmp(what, "locked-memory")) return take(1), 0;
    if (!strcmp(what, "memory-files")) return take_files(), 0;
    if (!strcmp(what, "memory-segments")) return take_segments(), 0;
    if (!strcmp(what, "mapped-file")) return map_file(open("/tmp/mapped", O_RDWR | O_CREAT, 0600)), 0;
    if (!strcmp(what, "mapped-memory-file")) return map_file(memfd_create("hostile", 0)), 0;
    if (!strcmp(what, "first-to-go")) return print_file("/proc/self/oom_score_adj");
    if (!strcmp(what, "flood")) return flood(), 0;
    if (!strcmp(what, "deceive")) return deceive();
    if (!strcmp(what, "lie")) return lie();
    if (!strcmp(what, "disk")) return fill_all(word), 0;
    if (!strcmp(what, "inodes")) return make_files(word), 0;
    if (!strcmp(what, "open-files")) return open_files(), 0;
    if (!strcmp(what, "network")) return use_network(atoi(argv[3]), argv[4], argv[5]), 0;
    if (!strcmp(what, "files")) return use_files(argv[3]), 0;
    if (!strcmp(what, "secret")) return find_secret(argv[3], argv[4]), 0;
    if (!strcmp(what, "calls")) return call_all(), 0;
    if (!strcmp(what, "terminal")) return use_terminal(), 0;
    return fprintf(stderr, "hostile: %s?\n", what), 64;
}
