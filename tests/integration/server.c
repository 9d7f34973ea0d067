/* A server for tests of probes: ./server PORT [option...], or a client: ./server look-up NAME. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int code;

static void stop(int number) {
    (void)number;
    _exit(code);
}

static int look_up(const char *name) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[INET6_ADDRSTRLEN] = "?";
    int error = getaddrinfo(name, NULL, &hints, &found);
    if (error) return printf("%s: %s\n", name, gai_strerror(error)), 1;
    for (; found; found = found->ai_next) {
        void *address = &((struct sockaddr_in *)found->ai_addr)->sin_addr;
        if (found->ai_family == AF_INET) printf("%s\n", inet_ntop(AF_INET, address, text, sizeof text));
    }
    return 0;
}

static int listener(int port) {
    int on = 1, file = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(file, (struct sockaddr *)&address, sizeof address) || listen(file, 8)) exit(9);
    return file;
}

/* Words of NULL are no answer: the request has been read, or closing would reset the connection. */
static void answer(int file, const char *words) {
    char request[4096] = "";
    ssize_t length = read(file, request, sizeof request - 1);
    char *end = length > 0 ? strstr(request, "\r\n") : NULL;
    if (end) *end = 0;
    if (words) dprintf(file, "HTTP/1.1 %s\r\nConnection: close\r\n\r\nyou said %s\n", words, request);
    close(file);
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count == 3 && !strcmp(words[1], "look-up")) return look_up(words[2]);
    const char *said = "200 OK", *way = "";
    int delay = 0;
    for (int each = 2; each < count; each++) {
        if (!strncmp(words[each], "exit=", 5)) code = atoi(words[each] + 5), signal(SIGTERM, stop);
        else if (!strncmp(words[each], "delay=", 6)) delay = atoi(words[each] + 6);
        else if (!strncmp(words[each], "status=", 7)) said = words[each] + 7;
        else way = words[each];
    }
    usleep(delay * 1000);
    if (!strcmp(way, "early")) return 3;
    int file = !strcmp(way, "deaf") ? -1 : listener(atoi(words[1]));
    puts("listening");
    for (;;) {
        if (file < 0) pause();
        int client = accept(file, NULL, NULL);
        if (!strcmp(way, "hang-up")) answer(client, NULL);
        else if (strcmp(way, "silent")) answer(client, said);
        if (!strcmp(way, "crash")) abort();
        if (!strcmp(way, "once")) return 0;
    }
}
