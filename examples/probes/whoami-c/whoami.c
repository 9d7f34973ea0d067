/* Prints the name of the user who runs it. */
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    struct passwd *user = getpwuid(geteuid());
    if (!user) {
        fprintf(stderr, "no passwd entry for uid %d\n", (int)geteuid());
        return 1;
    }
    puts(user->pw_name);
    return 0;
}
