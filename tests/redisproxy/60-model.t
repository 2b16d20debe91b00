#!/usr/bin/env perl

# Many clients with deep pipelines of everything at once, against a model of each. Values carry the name of
# who wrote them, so that a reply to the wrong client shows. make test-redis-model for a long one.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $rounds = $ENV{EG_MODEL_ROUNDS} // 50;
my $seed = $ENV{EG_MODEL_SEED} // time ^ $$ << 12;
srand $seed;
# To have the same again.
diag "EG_MODEL_SEED=$seed EG_MODEL_ROUNDS=$rounds";

my $writer = Redis::server();
my $reader = Redis::server(args => [ '--replicaof', '127.0.0.1', $writer->redis_port ]);
wait_for { $reader->client->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication';
my $proxy = Redis::proxy($writer, reader => $reader, args => ['--read-your-writes=1h']);

# Somebody hears what all publish: by publisher, what is still to come. Who hung up without a word
# (%gone) is not sure to have been heard to the end, only in order.
my (%published, %gone);
my $subscriber = $proxy->client;
$subscriber->cmd('SUBSCRIBE', 'news');
sub hear
{
	my $wrong = 0;
	while (grep { @{ $published{$_} } && !$gone{$_} } keys %published) {
		my (undef, undef, $tag) = @{ $subscriber->get };
		my ($name) = $tag =~ /^(\w+)#/;
		my $next = $name && $published{$name} ? shift @{ $published{$name} } // 'nothing' : 'nothing';
		$wrong++, diag "published $tag, expected $next" if $next ne $tag;
	}
	return $wrong;
}

# The replica falls behind on purpose: it serves reads, and applies no writes.
sub lag { $reader->client->cmd('CLIENT', 'PAUSE', 300, 'WRITE'); return }

# A client of the model: its keys begin with its name, in the database where it is.
sub new_client
{
	my ($name) = @_;
	my $m = { name => $name, c => $proxy->client, db => 0, data => [ {}, {}, {} ], serial => 0 };
	# From the start it reads what it writes.
	$m->{c}->cmd('SET', "$name:first", 1);
	return $m;
}

sub value
{
	my ($m) = @_;
	my $size = (0, 1, 10, 500, 5000, 70_000, 300_000)[ rand(100) < 97 ? rand 5 : 5 + rand 2 ];
	my $tag = "$m->{name}#" . $m->{serial}++;
	return $size ? $tag . '.' x ($size > length $tag ? $size - length $tag : 0) : '';
}

# One command put, and what must come back for it: [what, expected ...].
sub step
{
	my ($m, $in_multi) = @_;
	my $c = $m->{c};
	my $key = "$m->{name}:" . int rand 5;
	my $data = $m->{data}[ $m->{db} ];
	my $kind = int rand($in_multi ? 5 : 13);
	if ($kind <= 1) {
		my $v = value($m);
		$c->put('SET', $key, $v);
		$data->{$key} = $v;
		return 'OK';
	}
	if ($kind <= 3) { $c->put('GET', $key); return $data->{$key} }
	if ($kind == 4) {
		my $n = "$m->{name}:n";
		$c->put('INCR', $n);
		return $data->{$n} = ($data->{$n} // 0) + 1;
	}
	if ($kind == 5) { $c->put('NOSUCH', $m->{name}); return qr/^ERR unknown command 'NOSUCH', with args beginning with: '$m->{name}'/ }
	if ($kind == 6) { $c->put('ECHO', "$m->{name}$m->{serial}"); return "$m->{name}" . $m->{serial}++ }
	if ($kind == 7) { $m->{db} = int rand 3; $c->put('SELECT', $m->{db}); return 'OK' }
	if ($kind == 8) {
		my $list = "$m->{name}:list";
		my $v = value($m);
		$c->put('RPUSH', $list, $v);
		$c->put('BLPOP', $list, 0);
		return (1, [ $list, $v ]);
	}
	if ($kind == 9) {
		my @steps;
		$c->put('WATCH', $key) if rand() < 0.3 and push @steps, 'OK';
		$c->put('MULTI');
		my @results = map { step($m, 1) } 1 .. rand 5;
		$c->put('EXEC');
		return (@steps, 'OK', ('QUEUED') x @results, \@results);
	}
	if ($kind == 10) { $c->put('MGET', map { "$m->{name}:$_" } 0 .. 4); return [ map { $data->{"$m->{name}:$_"} } 0 .. 4 ] }
	if ($kind == 11) {
		my $tag = "$m->{name}#" . $m->{serial}++;
		push @{ $published{ $m->{name} } }, $tag;
		$c->put('PUBLISH', 'news', $tag);
		return 1;
	}
	$c->put('CLIENT', 'SETNAME', "$m->{name}x$m->{serial}");
	$c->put('CLIENT', 'GETNAME');
	return ('OK', "$m->{name}x" . $m->{serial}++);
}

sub same
{
	my ($got, $want) = @_;
	return defined $got && ref $got eq 'Redis::Error' && $$got =~ $want if ref $want eq 'Regexp';
	return !defined $got if !defined $want;
	return 0 if !defined $got || ref $got ne ref $want;
	return $got eq $want if !ref $want;
	return @$got == @$want && !grep { !same($got->[$_], $want->[$_]) } 0 .. $#$want;
}

sub show { my ($v) = @_; return !defined $v ? 'nil' : ref $v eq 'ARRAY' ? '[' . join(',', map { show($_) } @$v) . ']' : ref $v eq 'Redis::Error' ? "-$$v" : substr $v, 0, 60 }

my $names = 'a';
my @models = map { new_client('client' . $names++) } 1 .. 12;
my ($checked, $bad) = (0, 0);

sub replies_are
{
	my ($m, $when, @expected) = @_;
	for my $want (@expected) {
		my $got = $m->{c}->get;
		$checked++;
		next if same($got, $want);
		diag "$when, $m->{name}: got " . show($got) . ', expected ' . show($want);
		last if ++$bad > 5;
	}
	return $bad <= 5;
}

# One leaves: says that it will say no more and takes its replies, or is just gone in the middle of things.
sub leave
{
	my ($m) = @_;
	my @expected = map { step($m) } 1 .. 10;
	if (rand() < 0.5) {
		$gone{ $m->{name} } = 1;
		return;
	}
	shutdown $m->{c}->socket, 1;
	replies_are($m, 'leaving', @expected);
	$bad++, diag "$m->{name} left, and its connection did not end" if !$m->{c}->closed;
	return;
}

ROUND: for my $round (1 .. $rounds) {
	my @expected;
	lag() if $round % 2;
	for my $i (0 .. $#models) {
		if (rand() < 0.03) {
			leave($models[$i]);
			$models[$i] = new_client('client' . $names++);
		}
		$expected[$i] = [ map { step($models[$i]) } 1 .. rand 30 ];
	}
	for my $i (reverse 0 .. $#models) {
		replies_are($models[$i], "round $round", @{ $expected[$i] }) or last ROUND;
	}
	$bad += hear();
}
is $bad, 0, "$checked replies, each the right one at its place";
my ($connected) = $writer->client->cmd('INFO', 'clients') =~ /connected_clients:(\d+)/;
note "$connected connections to the writer";
done_testing;
