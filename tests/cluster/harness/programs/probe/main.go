// What a test needs inside a pod when the pod's image has no shell: one static program with a few small commands.
//
//	probe serve :8080 TEXT   answer every HTTP request with TEXT until SIGTERM
//	probe get URL            print the body of an HTTP answer; exit 1 unless it is 200
//	probe lookup NAME        print the addresses of a name
//	probe write PATH TEXT    write a file
//	probe print TEXT [CODE]  print TEXT and exit with CODE
//	probe sleep              wait for SIGTERM, then exit 143
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("no command"))
	}
	arguments := append(os.Args[2:], "", "")
	switch os.Args[1] {
	case "serve":
		serve(arguments[0], arguments[1])
	case "get":
		get(arguments[0])
	case "lookup":
		lookup(arguments[0])
	case "write":
		check(os.WriteFile(arguments[0], []byte(arguments[1]), 0o644))
	case "print":
		fmt.Println(arguments[0])
		code, _ := strconv.Atoi(arguments[1])
		os.Exit(code)
	case "sleep":
		waitForEnd()
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

func serve(address, text string) {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprint(answer, text) })
	go func() { check(http.ListenAndServe(address, nil)) }()
	fmt.Println("serving on", address)
	waitForEnd()
}

func get(url string) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	check(err)
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	check(err)
	if answer.StatusCode != http.StatusOK {
		fail(fmt.Errorf("%s answered %s", url, answer.Status))
	}
}

func lookup(name string) {
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(limit, name)
	check(err)
	for _, address := range addresses {
		fmt.Println(address)
	}
}

func waitForEnd() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	fmt.Println("stopped by SIGTERM")
	os.Exit(143)
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(1)
}
