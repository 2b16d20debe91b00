#!/usr/bin/env perl

# manifests/monitoring: rules that promtool accepts and whose unit tests pass; every query, of the rules, the dashboard, the
# status page and podctl top, names only metrics and labels that docs/METRICS.md has; every alert is explained.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Monitoring;

my $dir = $Monitoring::DIR;
my $promtool = (grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH})[0];
my @rules = Monitoring::rules();
my @alerts = grep { $_->{alert} } @rules;
my $known = Monitoring::known();

subtest promtool => sub {
	plan skip_all => 'promtool is not installed (mk/deps test)' if !$promtool;
	my $out = qx($promtool check config $dir/prometheus.yml 2>&1);
	is $?, 0, 'configuration and rules' or diag $out;
	like $out, qr/SUCCESS: (\d+) rules found/, 'are found';
	$out = qx(cd $FindBin::Bin && $promtool test rules alerts_test.yml 2>&1);
	is $?, 0, 'unit tests' or diag $out;
	# Queries of the dashboard are no rules, but parse like them.
	my $n = 0;
	my $text = "groups:\n  - name: dashboard\n    rules:\n" . join '', map { $n++; "      - { record: q$n, expr: '" . $_->[1] =~ s/'/''/gr . "' }\n" } Monitoring::queries();
	$out = qx($promtool check rules @{[ spew(test_path('queries.yml'), $text) ]} 2>&1);
	is $?, 0, "$n queries of the dashboard" or diag $out;
};

sub unknown
{
	my ($query) = @_;
	my @unknown;
	my @selectors = Monitoring::selectors($query) or return 'names no metric';
	for (@selectors) {
		my ($name, $labels) = @$_;
		push @unknown, $name if !$known->{$name};
		push @unknown, map { "$name\{$_}" } grep { $known->{$name} && !$known->{$name}{labels}{$_} && !/^(?:job|instance|merger_url)$/ } @$labels;
	}
	return join ' ', @unknown;
}

subtest 'names' => sub {
	is unknown($_->{expr}), '', $_->{record} // $_->{alert} for @rules;
	is unknown($_->[1]), '', "panel: $_->[0]" for Monitoring::queries();
	is unknown('rate(nothing_total{a="b"}[5m])'), 'nothing_total', 'one that is not there is found';
	is unknown('hashd_requests_total{code="200"}'), 'hashd_requests_total{code}', 'and a label';
	my $prefix = qr/(?:http|ollama|hashd|gatewayd|broadcaster|redisproxy|redis|supervisor|merger|process|loop|log|build|saved|processed|openai|circuit|tcp|rpc)/;
	for my $file (qw(exportermerger/status.html supervisor/ctl/pod_numbers.c)) {
		next if !-e eg_root() . "/$file";
		my %names = map { ($_ => 1) } grep { $_ ne 'merger_url' } slurp(eg_root() . "/$file") =~ /["'](${prefix}_\w+)["']/g;
		cmp_ok scalar(keys %names), '>', 1, "$file: " . scalar(keys %names) . ' names';
		is join(' ', sort grep { !$known->{$_} } keys %names), '', 'all known';
	}
};

subtest 'alerts' => sub {
	my $tests = slurp("$FindBin::Bin/alerts_test.yml");
	my $operations = slurp(eg_root() . '/docs/OPERATIONS.md');
	for my $alert (@alerts) {
		my $name = $alert->{alert};
		like $tests, qr/alertname: $name\n\s+exp_alerts:\n/, "$name: fires in a test";
		like $tests, qr/name: $name, quiet\n/, 'and is quiet in one';
		like $operations, qr/^### $name$/m, 'is explained';
		is $alert->{runbook}, 'docs/OPERATIONS.md#' . lc $name, 'where the alert says';
		like $alert->{severity}, qr/^(?:critical|warning|info)$/, 'severity';
	}
	my %alert = map { ($_->{alert} => 1) } @alerts;
	is join(' ', grep { !$alert{$_} } $operations =~ /^### (Gateway\w+)$/mg), '', 'nothing is explained that is not there';
};

subtest 'the dashboard' => sub {
	my $dashboard = Monitoring::dashboard();
	my (%id, %cell);
	for my $panel (@{ $dashboard->{panels} }) {
		ok !$id{ $panel->{id} }++, "$panel->{title}: an id of its own";
		my $at = $panel->{gridPos};
		my @cells = map { my $x = $_; map { "$x,$_" } $at->{y} .. $at->{y} + $at->{h} - 1 } $at->{x} .. $at->{x} + $at->{w} - 1;
		is scalar(grep { $cell{$_}++ } @cells), 0, 'and a place of its own';
		cmp_ok $at->{x} + $at->{w}, '<=', 24, 'in the grid';
	}
	my $node = "$FindBin::Bin/../lib/node/node_modules";
	SKIP: {
		skip '@grafana/schema and typescript are not installed (mk/deps test)', 2 if !-d "$node/\@grafana/schema" || !-d "$node/typescript";
		my $check = sub { my ($file) = @_; my $out = qx(node $FindBin::Bin/dashboard_types.mjs $node $file @{[ test_dir() ]} 2>&1); return $out };
		is $check->("$dir/dashboard.json"), '', "fits Grafana's types";
		my $bad = slurp("$dir/dashboard.json");
		$bad =~ s/"fillOpacity"/"fillOpacyti"/ && $bad =~ s/"mode": "multi"/"mode": "many"/ or die;
		like $check->(spew(test_path('bad.json'), $bad)), qr/fillOpacyti.*\n?.*|many/, 'one that does not is told';
	}
};

done_testing;
