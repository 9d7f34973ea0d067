// Greet-server greets over HTTP until it is told to end.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
)

func main() {
	// PID 1 has no default handlers: without this one, SIGTERM would be ignored.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(greet)}
	go func() {
		<-ctx.Done()
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func greet(answer http.ResponseWriter, request *http.Request) {
	fmt.Fprintf(answer, "Hello, %s!\n", request.URL.Query().Get("name"))
}
