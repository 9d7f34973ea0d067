/* Prints the first hour of 1970 as the clocks in Paris showed it. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(void) {
    time_t epoch = 0;
    char text[64];
    setenv("TZ", "Europe/Paris", 1);
    strftime(text, sizeof text, "%H:%M %Z", localtime(&epoch));
    puts(text);
    return 0;
}
