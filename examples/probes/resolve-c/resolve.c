/* Resolves a name: through NSS with glibc, by itself with musl. */
#include <netdb.h>
#include <stdio.h>

int main(int argc, char **argv) {
    struct addrinfo *found;
    int error = getaddrinfo(argv[argc - 1], NULL, NULL, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", argv[argc - 1], gai_strerror(error));
        return 1;
    }
    char address[64];
    getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST);
    puts(address);
    return 0;
}
