// Whatsmyip asks a service over HTTPS and prints the answer.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	if err := ask(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(url string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}
