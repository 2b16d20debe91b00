# Checks that need no running daemon.

SOURCES := $(wildcard common/*.[ch] mk/*.[ch] tests/*/*.[ch] $(foreach d,$(DIRS),$(d)/*.[ch] $(d)/*/*.[ch]))

.PHONY: lint format docs
format: ## rewrite the sources with clang-format
	$(Q)clang-format -i $(SOURCES)

docs: all $(BIN)/interfaces-doc ## regenerate OPTIONS.md, METRICS.md and INTERFACES.md
	$(Q)mk/docs $(BIN) docs

lint: deps-lint all $(BIN)/interfaces-doc ## format, include rule, banned calls, docs in step with the code
	$(Q)mk/lint $(BIN)
