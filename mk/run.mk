# Set-up and the local pod.

.PHONY: deps deps-test deps-lint deps-fuzz deps-bench deps-suite run dev
deps: ## install what building and running needs (quick when nothing is missing)
	@mk/deps build
deps-test: deps ## install what the tests need too
	@mk/deps test

deps-lint: deps
	@mk/deps lint

deps-fuzz: deps
	@mk/deps fuzz

deps-bench: deps
	@mk/deps bench

deps-suite: deps
	@mk/deps suite

run: all ## start the local pod in the foreground, send two requests, stay until Ctrl-C
	@manifests/local/run

dev: all ## the local pod; rebuilds and restarts what changed while you edit
	@manifests/local/dev
