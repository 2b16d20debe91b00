#!/usr/bin/env perl

# --check beside the parsers of others, on pages that are valid, odd, broken, and mutated at random: classic text
# beside promtool, OpenMetrics beside python3-prometheus-client. Where we are stricter, the reason that we give
# is one of the list below, which says why; the other way round there is one mistake of theirs.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use IPC::Open2 qw(open2);
use POSIX ();

my $python = '/usr/bin/python3';
my $has_promtool = grep { -x "$_/promtool" } split /:/, $ENV{PATH};
my $has_python = -x $python && system("$python -c 'import prometheus_client.openmetrics.parser' 2>/dev/null") == 0;
plan skip_all => 'neither promtool (package prometheus) nor python3-prometheus-client is installed' if !$has_promtool && !$has_python;
my $seed = $ENV{EG_SEED} // 1;
srand $seed;
diag "seed $seed" if $ENV{EG_SEED};

# What promtool does not look at.
my %stricter_text = (
	'series given twice' => 'the format says that each line is unique',
	'family opened twice' => 'the format says that a family is one group',
	'no newline at the end' => 'the format wants one; promtool lets a comment without it pass',
	'label name __name__ is reserved' => 'it would rename the metric',
	'not UTF-8' => 'the format is UTF-8; promtool looks at label values only',
);
# "This is a laxer parser than the main Go parser", it says of itself. What it does not look at:
my %stricter_openmetrics = (
	'bad metric name' => 'any name passes there',
	'no space after the name in a comment' => 'any name passes there',
	'escape in a quoted name' => 'any name passes there',
	'bad label name' => 'the empty one passes before a comma',
	'comma after the last label' => 'not in the ABNF',
	'series given twice' => 'dropped there without a word',
	'bad value' => 'Python numbers: blanks, other digits, signed nan',
	'bad timestamp' => 'Python numbers',
	'bad timestamp of an exemplar' => 'Python numbers',
	'le is not a number' => 'Python numbers',
	'quantile is not a number' => 'Python numbers',
	'label name __name__ is reserved' => 'it would rename the metric',
	'neither HELP, TYPE, UNIT nor EOF in a comment' => 'anything passes there that begins with #, not only "# "',
	'more after the sample' => 'an exemplar without a hash, or with more behind it, is cut there',
	'more after the value' => 'the same',
	'more after the timestamp' => 'the same',
	'more after an exemplar' => 'the same',
	'exemplar without labels' => 'the same',
	'no space before the value of an exemplar' => 'the same',
	'no space before the value' => 'what stands there is skipped unseen',
	'neither , nor } after a label' => 'the last brace of the line counts there',
	'label value without its end' => 'the same',
	'no = after a label name' => 'the same',
	'label value without quotes' => 'the same',
	'samples of one series have different timestamps' => 'truncated timestamps count as equal there',
);

# An exemplar's label value with a brace: its reader looks for the first one.
my $their_mistake = qr/ # \{[^}"]*"[^"]*\}[^"]*"/;

# ---- pages ----

my @text = map { "$_\n" } (
	'a 1', "a 1\nb 2", 'a{x="1"} 1', 'a{x="1",} 1', 'a{x="1",y="2"} 1 3', 'a{} 1', 'a{ } 1', 'a { x = "1" } 1', "\ta\t1\t2",
	'a+1', 'a{x="1"}1', 'a NaN', 'a nan', 'a +Inf', 'a -Inf', 'a inf', 'a Infinity', 'a +NaN', 'a 1e5', 'a 1E+5', 'a 1e', 'a .5',
	'a 5.', 'a .', 'a -', 'a 0x1', 'a 0x1p4', 'a 1_0', 'a 1e400', 'a -1e400', 'a 1e-400', 'a 1 ', 'a 1 2 ', 'a 1 2 3', 'a 1 2.5', 'a 1 -5',
	'a 1 +5', 'a 1 9223372036854775807', 'a 1 9223372036854775808', 'a 1 -9223372036854775808', 'a 1 -9223372036854775809', 'a 1 x', 'a',
	'a ', '1a 1', 'a.b 1', 'a-b 1', ':a 1', '_a 1', 'a{1="x"} 1', 'a{x:y="1"} 1', 'a{_="1"} 1', 'a{="1"} 1', 'a{x} 1', 'a{x=} 1',
	'a{x=1} 1', 'a{x="1} 1', 'a{x="1" 1', 'a{x="1"', 'a{,} 1', 'a{x="1",,y="2"} 1', 'a{x="1" y="2"} 1', 'a{x="1";y="2"} 1',
	'a{x="1",x="2"} 1', 'a{__name__="b"} 1', '{x="1"} 1', 'a{x="\\\\"} 1', 'a{x="\\""} 1', 'a{x="\\n"} 1', 'a{x="\\t"} 1', 'a{x="\\"} 1',
	"a{x=\"\xc3\xa9\"} 1", "a{x=\"\xff\"} 1", "a{x=\"\xed\xa0\x80\"} 1", "a{x=\"a\nb\"} 1", 'a{x=""} 1', "a 1\r", '', ' ', "\n\n", '#', '# ', '# x', '#x',
	'# HELP', '# HELP a', '# HELP a ', '# HELP a b', '#HELP a b', '#  HELP  a  b', "#\tHELP\ta\tb", '# HELP a b\\c', '# HELP a b\\\\c\\n',
	'# HELP 1a b', '# HELP a-b c', '# HELP a{x="1"} c', '# help a b', '# TYPE', '# TYPE a', '# TYPE a gauge', '# TYPE a GAUGE', '# TYPE a Gauge ',
	'# TYPE a gauge x', '# TYPE a foo', '# TYPE a info', '# TYPE a stateset', '# TYPE a gaugehistogram', '# TYPE a unknown', '# TYPE a untyped', "# TYPE a gauge\r",
	"# HELP a b\n# HELP a c", "# HELP a\n# HELP a c", "# TYPE a gauge\n# TYPE a gauge", "# TYPE a gauge\n# TYPE a counter", "a 1\n# TYPE a gauge", "a 1\n# HELP a b",
	"# HELP a b\n# TYPE a counter\na 1", "# TYPE a counter\na -1", "# TYPE a counter\na NaN", "# TYPE a gauge\n# HELP b x\na 1\nb 1",
	"# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 2", "# TYPE a histogram\na_bucket{le=\"x\"} 1",
	"# TYPE a histogram\na_bucket 1", "# TYPE a histogram\na 1", "# TYPE a histogram\na_bucket{le=\"1\"} 1.5", "# TYPE a histogram\na_count -1",
	"# TYPE a histogram\na_bucket{le=\"NaN\"} 1", "# TYPE a histogram\na_sum{le=\"x\"} 1", "# TYPE a histogram\na_bucket{le=\"1e400\"} 1",
	"# TYPE a histogram\n# TYPE a_sum gauge", "# TYPE a histogram\n# HELP a_sum x", "# TYPE a histogram\n# HELP a x\n# HELP a_count y", "# TYPE a_sum gauge\n# TYPE a summary\na_sum 1",
	"# TYPE a summary\na{quantile=\"0.5\"} 1\na_sum 1\na_count 2", "# TYPE a summary\na{quantile=\"x\"} 1", "# TYPE a summary\na 1", "# TYPE a summary\na{quantile=\"2\"} 1",
	"# TYPE a summary\na_sum{quantile=\"x\"} 1", "# TYPE a summary\na_bucket{le=\"x\"} 1", "a 1\na 2", "a{x=\"1\"} 1\na{x=\"2\"} 1", "a{x=\"1\"} 1\nb 1\na{x=\"2\"} 1",
	'a 1 # {x="1"} 1', '# EOF', "# EOF\na 1", '<html><body>not found</body></html>', '{"status":"error"}', "a 1\n\n\nb 1", "a 1\n# comment\nb 2 3",
	'a{x="' . 'y' x 5000 . '"} 1', 'a{' . join(',', map { qq(l$_="v$_") } 1 .. 200) . '} 1',
);
push @text, '', 'a 1', 'a', '# x', '# x y', '# HELP a b', '# TYPE a gauge', ' ', "a 1\n ", "a 1\n#";

my @openmetrics = map { "$_\n# EOF\n" } (
	'a 1', 'a{x="1"} 1', 'a{x="1"} 1 2', 'a{x="1"} 1 2.5', 'a 1 1e3', 'a 1 -1', 'a 1 .5', 'a 1 5.', 'a 1 NaN', 'a 1 Inf', 'a 1 x', 'a 1 ', 'a  1', ' a 1', 'a 1  2', "a\t1",
	'a{} 1', 'a{x="1",} 1', 'a{,} 1', 'a{x="1",,y="2"} 1', 'a{x="1" ,y="2"} 1', 'a{x="1"y="2"} 1', 'a{x=1} 1', 'a{x} 1', 'a{="1"} 1', 'a{x="1} 1', 'a{x="1"', 'a{x="1"}1',
	'a{x="1",x="2"} 1', 'a{1x="1"} 1', 'a{x:y="1"} 1', 'a{x="\\n\\\\\\""} 1', 'a{x="\\t"} 1', 'a{x="\\"} 1', "a{x=\"\xc3\xa9\"} 1", 'a nan', 'a NaN', 'a +Inf', 'a -inf', 'a Infinity', 'a 1e5', 'a 1e400',
	'a 1_0', 'a 0x1', 'a .5', 'a 5.', 'a .', 'a x', 'a', '', "a 1\n", "a 1\r", '# comment', '#', '# ', '#TYPE a gauge', '# HELP a', '# HELP a ', '# HELP a b', '# HELP a b\\c"d', '# TYPE a', '# TYPE a ',
	'# TYPE a gauge', '# TYPE a Gauge', '# TYPE a untyped', '# TYPE a foo', '# TYPE a gauge ', '# UNIT a', '# UNIT a ', '# UNIT a s', '# UNIT a_s s', "# TYPE a_s info\n# UNIT a_s s", "# UNIT a_s s\n# UNIT a_s s",
	"# TYPE a_s stateset\n# UNIT a_s s", "# TYPE a gauge\n# TYPE a gauge", "# HELP a b\n# HELP a b", "# TYPE a gauge\na 1\n# HELP a b", "# TYPE a gauge\n# TYPE b gauge\n# HELP a x", "a 1\n# TYPE a gauge",
	"# TYPE a gauge\na 1\nb 1\na{x=\"1\"} 2", "a 1\na 2", "a 1 1\na 2 2", "a 1 2\na 2 1", "a 1 1\na 2", "a 1\na 2 1", "a{x=\"1\"} 1 1\na{x=\"2\"} 1 1\na{x=\"1\"} 1 2",
	"# TYPE a counter\na_total 1", "# TYPE a counter\na_total 1\na_created 2", "# TYPE a counter\na 1", "# TYPE a counter\na_total -1", "# TYPE a counter\na_total NaN", "# TYPE a counter\na_total +Inf", "# TYPE a counter\na_bucket 1",
	"# TYPE a_total counter\na_total_total 1", "# TYPE a counter\na_total 1\n# TYPE a_total gauge", "# TYPE a counter\n# TYPE a_created gauge", "# TYPE a gauge\n# TYPE a_total counter", "# TYPE a summary\n# TYPE a_count gauge",
	"# TYPE a gauge\na -1\n# TYPE b gauge\nb NaN", "# TYPE a unknown\na 1",
	"# TYPE i info\ni_info{v=\"1\"} 1", "# TYPE i info\ni_info{v=\"1\"} 2", "# TYPE i info\ni 1", "# TYPE i info\ni_info{v=\"1\"} 1\ni_info{v=\"2\"} 1\ni_info{v=\"3\"} 1 5",
	"# TYPE s stateset\ns{s=\"a\"} 1\ns{s=\"b\"} 0", "# TYPE s stateset\ns{s=\"a\"} 2", "# TYPE s stateset\ns{x=\"a\"} 1", "# TYPE s stateset\ns 1", "# TYPE s stateset\ns{s=\"a\",x=\"1\"} 1\ns{s=\"a\",x=\"2\"} 1\ns{s=\"b\",x=\"1\"} 0",
	"# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 2", "# TYPE s summary\ns 1", "# TYPE s summary\ns{quantile=\"2\"} 1", "# TYPE s summary\ns{quantile=\"-0.1\"} 1", "# TYPE s summary\ns{quantile=\"x\"} 1", "# TYPE s summary\ns{quantile=\"NaN\"} 1",
	"# TYPE s summary\ns{quantile=\"0.5\"} -1", "# TYPE s summary\ns{quantile=\"0.5\"} NaN", "# TYPE s summary\ns_sum -1", "# TYPE s summary\ns_sum NaN", "# TYPE s summary\ns_count 1.5", "# TYPE s summary\ns_count -1", "# TYPE s summary\ns_created 1\ns_sum 1",
	(map { "# TYPE h histogram\n$_" } 'h_bucket{le="+Inf"} 1', "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\nh_created 4", 'h_bucket{le="1"} 1', 'h_bucket 1', 'h_bucket{le="inf"} 1', 'h_bucket{le="Inf"} 1', 'h_bucket{le="NaN"} 1',
		'h_bucket{le="x"} 1', 'h_bucket{le="+Inf"} 1.5', 'h_bucket{le="+Inf"} -1', 'h_bucket{le="+Inf"} NaN', 'h_bucket{le="+Inf"} +Inf', "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1", "h_bucket{le=\"+Inf\"} 1\nh_bucket{le=\"1\"} 1",
		"h_bucket{le=\"1\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1", "h_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 1", "h_bucket{le=\"+Inf\"} 1\nh_count 1", "h_bucket{le=\"+Inf\"} 1\nh_sum 1", "h_bucket{le=\"+Inf\"} 1\nh_count 2\nh_sum 1",
		"h_bucket{le=\"-1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1", "h_bucket{le=\"-1\"} 1\nh_bucket{le=\"+Inf\"} 1", 'h_count 1', 'h_created 1', 'h 1', "h_sum 1\nh_count 1\nh_bucket{le=\"+Inf\"} 1", "h_bucket{le=\"+Inf\"} 1 5\nh_count 1 5\nh_sum 1 5", "h_bucket{le=\"+Inf\"} 1 5\nh_count 1 6\nh_sum 1 6",
		"h_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum -1", "h_bucket{le=\"1\"} 1 # {t=\"x\"} 0.5 3\nh_bucket{le=\"+Inf\"} 1", "h_bucket{le=\"+Inf\"} 1\nh_count 1 # {t=\"x\"} 1\nh_sum 1", "h_bucket{le=\"+Inf\",a=\"1\"} 1\nh_bucket{le=\"+Inf\",a=\"2\"} 1\nh_count{a=\"1\"} 1"),
	(map { "# TYPE g gaugehistogram\n$_" } "g_bucket{le=\"+Inf\"} 1\ng_gcount 1\ng_gsum 2", "g_bucket{le=\"+Inf\"} 1\ng_gsum -2\ng_gcount 1", "g_bucket{le=\"-1\"} 1\ng_bucket{le=\"+Inf\"} 1\ng_gcount 1\ng_gsum -2", 'g_count 1', "g_bucket{le=\"+Inf\"} 1\ng_gcount 1", "g_bucket{le=\"+Inf\"} 1\ng_gsum 1", "g_bucket{le=\"+Inf\"} 1\ng_gcount 1\ng_gsum NaN"),
	(map { "# TYPE c counter\nc_total 1$_" } ' # {t="x"} 2', ' # {t="x"} 2 3', ' 9 # {t="x"} 2 3.5', ' # {} 2', ' # {t="x"}', ' # {t="x"} ', ' # {t="x"} x', ' # {t="x"} 2 x', ' # {t="x"} 2 3 4', ' # t="x" 2', ' # 2', ' #', ' # ', '# {t="x"} 2', ' {t="x"} 2',
		' # {t="' . 'y' x 127 . '"} 1', ' # {t="' . 'y' x 128 . '"} 1', ' # {t="x",t="y"} 1', " # {t=\"\xc3\xa9\"} 1", ' # {t="}"} 1'),
	"# TYPE g gauge\ng 1 # {t=\"x\"} 1", "# TYPE c counter\nc_total 1\nc_created 1 # {t=\"x\"} 1", 'a{x="# {y"} 1', 'a{x=" # {y"} 1', 'a{x="}"} 1', 'a{x="{"} 1',
);
push @openmetrics, '', '# EOF', "# EOF\n", "# EOF\n\n", "# EOF\n# EOF\n", "# EOF\na 1\n", 'a 1', "a 1\n", "a 1\n# EOF", "a 1\n#EOF\n", "\n# EOF\n", "# EOF \n", "a 1\n# EOF\nb";

# One small change, at a place and of a kind drawn by lot.
my @pieces = ('{', '}', '"', ',', '=', '#', ' ', "\n", "\\", 'a', '1', '_total', '# TYPE a gauge', '# EOF', "\t", '.', '-', "\xc3\xa9", "\xff", 'NaN', 'le="1"', "\r", '0', '+Inf', ' 5');
sub mutate
{
	my ($page) = @_;
	my $at = int rand(1 + length $page);
	my $kind = int rand 6;
	if ($kind == 0) { substr $page, $at, 0, $pieces[rand @pieces] }
	elsif ($kind == 1) { substr $page, $at, 1, '' if $at < length $page }
	elsif ($kind == 2) { substr $page, $at, 1, $pieces[rand @pieces] if $at < length $page }
	elsif ($kind == 3) { $page = substr $page, 0, $at }
	else {
		my @lines = split /^/, $page;
		return $page if !@lines;
		my ($from, $to) = (int rand @lines, int rand @lines);
		if ($kind == 4) { splice @lines, $to, 0, $lines[$from] }
		else { @lines[$from, $to] = @lines[$to, $from] }
		$page = join '', @lines;
	}
	return $page;
}

my @long_text = (
	"# HELP http_requests_total The \\n number.\n# TYPE http_requests_total counter\nhttp_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\nhttp_requests_total{method=\"post\",code=\"400\"} 3 1395066363000\n\n# a comment\nmsdos{path=\"C:\\\\DIR\",error=\"x:\\n\\\"y\\\"\"} 1.458255915e9\n",
	"# TYPE h histogram\nh_bucket{le=\"0.05\"} 24054\nh_bucket{le=\"0.1\"} 33444\nh_bucket{le=\"+Inf\"} 144320\nh_sum 53423\nh_count 144320\n# TYPE s summary\ns{quantile=\"0.01\"} 3102\ns{quantile=\"0.99\"} 76656\ns_sum 1.7560473e+07\ns_count 2693\nlast +Inf -3982045\n",
);
my @long_openmetrics = (
	"# TYPE c_seconds counter\n# UNIT c_seconds seconds\n# HELP c_seconds Text\\n\\\"x\\\"\nc_seconds_total{a=\"1\"} 17.0 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67\nc_seconds_created{a=\"1\"} 1520872607.123 1520879607.789\n# TYPE g gauge\ng{x=\"\"} -1\ng{x=\"2\"} NaN\n# EOF\n",
	"# TYPE h histogram\nh_bucket{le=\"0.0\"} 0\nh_bucket{le=\"0.1\"} 8 # {} 0.054\nh_bucket{le=\"+Inf\"} 17 # {trace_id=\"oHg5SJYRHA0\"} 9.8 1520879607.789\nh_count 17\nh_sum 324789.3\nh_created 1520430000.123\n# TYPE s stateset\ns{e=\"1\",s=\"a\"} 1\ns{e=\"1\",s=\"b\"} 0\n# TYPE i info\ni_info{n=\"pretty\"} 1\n# TYPE q summary\nq{quantile=\"0.5\"} 3\nq_sum 4\nq_count 2\n# EOF\n",
);
push @text, @long_text, map { mutate($_) } (@long_text) x 25;
push @openmetrics, @long_openmetrics, map { mutate($_) } ((@long_openmetrics) x 60, @openmetrics);

# ---- verdicts ----

# Our verdicts on all pages, by one process: '' or "line N: reason".
sub ours
{
	my ($format, @pages) = @_;
	my $dir = test_path("pages.$format");
	mkdir $dir or die "$dir: $!";
	my @said = ('') x @pages;
	spew("$dir/$_", $pages[$_]) for 0 .. $#pages;
	# Without an argument it reads standard input.
	open my $out, '-|', eg_bin('exportermerger'), '--check', '--format', $format, map { "$dir/$_" } 0 .. $#pages or die "exportermerger: $!";
	while (<$out>) { m{\A\Q$dir\E/(\d+): (line \d+: .*)\n\z} ? $said[$1] = $2 : die "not understood: $_" }
	close $out;
	die "exit $?" if $? & 127 || $? >> 8 != (grep({ $_ } @said) ? 1 : 0);
	return @said;
}

sub show { return substr($_[0], 0, 400) =~ s/([^ -~])/sprintf '\\x%02x', ord $1/egr }

sub compare
{
	my ($format, $pages, $oracle, $stricter) = @_;
	my (%seen, %used, @wrong, $n_good, $n_bad);
	my @pages = grep { !$seen{$_}++ } @$pages;
	my @ours = ours($format, @pages);
	my @theirs = $oracle->(@pages);
	for my $page (@pages) {
		my ($we, $they) = (shift @ours, shift @theirs);
		my ($reason) = $we =~ /^line \d+: (.*)/;
		$they ? $n_good++ : $n_bad++;
		next if !!$they == ($we eq '');
		if ($they && defined $stricter->{$reason}) { $used{$reason}++ }
		elsif (!$they && $format eq 'openmetrics' && $page =~ $their_mistake) { note 'their mistake: ' . show($page) }
		else { push @wrong, ($they ? 'we refuse' : 'we accept') . " ($we): " . show($page) }
	}
	cmp_ok $n_good + $n_bad, '>=', 150, "$format: " . ($n_good + $n_bad) . " pages, $n_good good ones";
	cmp_ok $_, '>=', 30, 'of both kinds' for $n_good, $n_bad;
	is join("\n", @wrong), '', 'the same verdicts';
	note "stricter: $_ ($used{$_}): $stricter->{$_}" for sort keys %used;
	return $n_good + $n_bad;
}

my $n = 0;
SKIP: {
	skip 'promtool (package prometheus) is not installed', 4 if !$has_promtool;
	# One process a page, two at a time. Exit 3 is lint, 1 a page that does not parse.
	$n += compare('text', \@text, sub {
		my (@theirs, %running);
		my $collect = sub {
			my $pid = wait;
			my ($at, $code) = (delete $running{$pid}, $? >> 8);
			die "promtool: $?" if !defined $at || $? & 127 || $code !~ /^[013]$/;
			$theirs[$at] = $code != 1;
		};
		for my $at (0 .. $#_) {
			$collect->() if keys %running == 2;
			my $pid = fork // die "fork: $!";
			if (!$pid) {
				open STDIN, '<', test_path("pages.text/$at") or POSIX::_exit(99);
				open STDOUT, '>', '/dev/null';
				open STDERR, '>', '/dev/null';
				exec 'promtool', 'check', 'metrics' or POSIX::_exit(99);
			}
			$running{$pid} = $at;
		}
		$collect->() while %running;
		return @theirs;
	}, \%stricter_text);
}
SKIP: {
	skip 'python3-prometheus-client is not installed', 4 if !$has_python;
	my $pid = open2(my $out, my $in, $python, '-c', <<'PYTHON');
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
while True:
    head = sys.stdin.buffer.readline()
    if not head:
        break
    page = sys.stdin.buffer.read(int(head))
    try:
        for family in text_string_to_metric_families(page.decode()):
            pass
        verdict = b'1'
    except Exception:
        verdict = b'0'
    sys.stdout.buffer.write(verdict + b'\n')
    sys.stdout.buffer.flush()
PYTHON
	binmode $in;
	$n += compare('openmetrics', \@openmetrics, sub {
		return map { print $in length, "\n", $_; $in->flush; <$out> + 0 } @_;
	}, \%stricter_openmetrics);
	close $in;
	waitpid $pid, 0;
}
cmp_ok $n, '>=', 300, "$n pages in all" if $has_promtool && $has_python;

done_testing;
