"""Word lists and small tables for the exercises."""

NAMES = (
    "Ana Ben Carla David Emma Felix Greta Hugo Ines Jonas Kira Leo Mia Noah Olga Paul Rosa Sam Tara Uma Victor Wendy Yara Zoe "
    "Alice Bob Maria Peter Lina Omar Aisha Kenji Priya Chen Ivan Sofia Lars Nina Tom Eva"
).split()
ASSISTANT_NAMES = "Robo Max Ada Orbit Pixel Luna Echo Nova Spark Juno Bolt Iris Otto Milo Atlas Vega".split()
CITIES = (
    "Paris Berlin Rome Madrid Oslo Vienna Prague Lisbon Athens Dublin London Tokyo Cairo Lima Boston Zurich Warsaw Helsinki "
    "Hamburg Munich Geneva Milan Porto Seoul Delhi Toronto Chicago Sydney Nairobi Bergen"
).split()
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Austria": "Vienna",
    "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki", "Poland": "Warsaw",
    "Greece": "Athens", "Ireland": "Dublin", "England": "London", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi",
    "Egypt": "Cairo", "Peru": "Lima", "Canada": "Ottawa", "Switzerland": "Bern", "the Netherlands": "Amsterdam",
    "Belgium": "Brussels", "Hungary": "Budapest", "Russia": "Moscow", "the United States": "Washington", "Kenya": "Nairobi",
    "Brazil": "Brasilia", "Mexico": "Mexico City", "South Korea": "Seoul",
}
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "left": "right", "good": "bad", "day": "night", "old": "new", "fast": "slow",
    "cheap": "dear", "long": "short", "high": "low", "open": "closed", "full": "empty", "black": "white", "early": "late",
    "idle": "busy", "easy": "hard", "light": "dark", "wet": "dry", "happy": "sad", "first": "last", "begin": "end", "hard": "soft",
    "strong": "weak", "rich": "poor", "near": "far", "inside": "outside", "loud": "quiet", "young": "old", "yes": "no",
}
HELLO = {
    "German": "Hallo!", "French": "Bonjour !", "Spanish": "¡Hola!", "Italian": "Ciao!", "Portuguese": "Olá!", "Dutch": "Hallo!",
    "Swedish": "Hej!", "Norwegian": "Hei!", "Danish": "Hej!", "Finnish": "Hei!", "Polish": "Cześć!", "Czech": "Ahoj!",
    "Russian": "Привет!", "Greek": "Γεια σου!", "Turkish": "Merhaba!", "Japanese": "こんにちは！", "Chinese": "你好！",
    "Korean": "안녕하세요!", "Hindi": "नमस्ते!", "Arabic": "مرحبا!", "Hebrew": "שלום!", "Swahili": "Jambo!", "Hungarian": "Szia!",
    "Latin": "Salve!", "Ukrainian": "Привіт!", "English": "Hello!", "Vietnamese": "Xin chào!", "Thai": "สวัสดี!",
}
THANKS = {
    "German": "Danke!", "French": "Merci !", "Spanish": "¡Gracias!", "Italian": "Grazie!", "Portuguese": "Obrigado!",
    "Dutch": "Dank je!", "Swedish": "Tack!", "Polish": "Dziękuję!", "Russian": "Спасибо!", "Japanese": "ありがとう！",
    "Chinese": "谢谢！", "Turkish": "Teşekkürler!", "Finnish": "Kiitos!", "Greek": "Ευχαριστώ!",
}
EMOJI = {
    "smile": "🙂", "heart": "❤️", "rocket": "🚀", "star": "⭐", "cat": "🐱", "dog": "🐶", "sun": "☀️", "tree": "🌳", "fire": "🔥",
    "moon": "🌙", "robot": "🤖", "cake": "🎂", "fish": "🐟", "flower": "🌸", "house": "🏠", "money": "💰",
}
LISTS = {
    "colours": "red blue green yellow orange purple black white brown pink grey silver gold violet turquoise".split(),
    "fruits": "apple banana pear orange cherry grape lemon peach plum mango melon kiwi fig apricot lime".split(),
    "animals": "dog cat horse cow sheep goat fox bear wolf lion tiger mouse rabbit deer owl seal frog duck crow whale".split(),
    "vegetables": "carrot potato onion tomato cabbage pea bean pepper spinach leek radish pumpkin garlic celery turnip".split(),
    "trees": "oak pine birch maple willow elm ash cedar fir beech poplar larch".split(),
    "countries": "France Germany Italy Spain Portugal Austria Norway Sweden Denmark Finland Poland Greece Ireland Japan India".split(),
    "cities": "Paris Berlin Rome Madrid Oslo Vienna Prague Lisbon Athens Dublin London Tokyo Cairo Lima Boston".split(),
    "tools": "hammer saw drill wrench screwdriver pliers ruler knife file chisel clamp level".split(),
    "birds": "owl crow robin eagle duck swan goose gull stork heron hawk wren".split(),
    "instruments": "piano violin guitar flute drum trumpet harp cello horn organ oboe bell".split(),
    "drinks": "water tea coffee milk juice lemonade cocoa cider soda wine".split(),
    "sports": "football tennis swimming running rowing hockey chess sailing skiing cycling boxing golf".split(),
    "jobs": "baker teacher farmer doctor driver nurse painter engineer pilot sailor lawyer cook".split(),
}
FIXED_LISTS = {
    "the days of the week": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "the months of the year": (
        "January February March April May June July August September October November December".split()
    ),
    "the planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "the seasons": "spring summer autumn winter".split(),
    "the letters of the alphabet": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "the notice classes": "n0 n2m n15m n1h n24h firm".split(),
    "the vowels": list("AEIOU"),
    "the objects of Sublet": (
        "organization,project,key,sku,site,pool,node,device,offering,price list,quote,lease,workload,meter event,hold,"
        "charge,invoice,credit note,contract,SLO case,ticket,audit entry".split(",")
    ),
}
FIXED_NAMES = {
    "the days of the week": ["the days of the week", "all days of the week", "the weekdays", "the days"],
    "the months of the year": ["the months of the year", "all months", "the months", "the twelve months"],
    "the planets": ["the planets", "all planets", "the planets of our system", "the eight planets"],
    "the seasons": ["the seasons", "the four seasons"],
    "the letters of the alphabet": ["the alphabet", "the letters of the alphabet", "all letters", "the ABC"],
    "the notice classes": ["the notice classes", "all notice classes", "the classes of notice"],
    "the vowels": ["the vowels", "all vowels"],
    "the objects of Sublet": ["the objects of Sublet", "all objects in Sublet", "the main objects of Sublet"],
}
WORDS = (
    "apple river token lease ledger window garden stone cloud paper engine yellow silver market morning winter bridge copper "
    "candle forest signal orange button pencil island mirror ladder basket rocket pepper thunder velvet anchor harbor "
    "banana tiger kitten monkey turtle falcon salmon spider meadow valley desert canyon glacier ocean planet comet nebula "
    "kernel buffer socket thread packet router cursor vector matrix tensor gradient model server client gateway budget "
    "invoice charge credit debit notice owner tenant reserve quote price hello world test one two three red blue green "
    "quick brown slow lazy happy small large bright dark quiet loud fresh warm cold round square simple strange"
).split()
SENTENCES = [
    "The owner comes first.", "I like green apples.", "The sun is shining today.", "Sublet sells idle GPUs.", "All is well.",
    "The quick test works.", "We meet at noon.", "Every cost is held first.", "Good things take time.", "My dog is brown.",
    "The train leaves at seven.", "It is cold outside.", "Nothing runs without a lease.", "The door is open.", "Tea is better than coffee.",
    "Hello, world!", "Have a nice day!", "This is a test.", "The cat sleeps on the rack.", "One plus one is two.",
]
SUBJECTS = (
    "quantum physics,the French Revolution,black holes,the stock market,photosynthesis,the Roman Empire,chess openings,baking bread,"
    "football,the theory of relativity,jazz music,opera,the human brain,dinosaurs,volcanoes,cooking rice,car engines,medicine,"
    "the moon landing,ancient Egypt,philosophy,painting,sailing boats,economics,biology,chemistry,the deep sea,poker,tennis,"
    "marathon training,gardening,wine,cheese,movies,video games,politics,law,history,geography,mathematics,algebra,calculus,"
    "blockchain,cryptography,compilers,databases in general,Python programming,web design,robots,space travel,climate,earthquakes,"
    "butterflies,elephants,penguins,architecture,poetry,Shakespeare,Mozart,yoga,knitting,bicycles,trains,airplanes,electric cars,"
    "batteries,solar panels,nuclear power,insurance,mortgages,taxes in Spain,visa rules,hotels in Rome,restaurants,recipes,pizza,"
    "pasta,sushi,diets,vitamins,sleep research,dreams,psychology,languages,grammar,Latin,music theory,photography,fashion,shoes"
).split(",")
CHORES = (
    "write a Python program,write a function that sorts a list,fix this bug,write an email to my boss,translate this text into Chinese,"
    "book me a flight,order a pizza,call my mother,plan my holiday,solve this equation,prove this theorem,summarize this article,"
    "review my essay,write a business plan,play a song,draw a picture of a cat,open the window,turn on the light,buy a car,"
    "find a job for me,write a contract for my house,check my spelling,write SQL to join two tables,write a regular expression,"
    "make a website,set an alarm,read my mail,recommend a book,recommend a film,give me legal advice,give me medical advice,"
    "predict the weather,predict the stock price,tell me the news,tell me the football results,write a song,compose music,"
    "write HTML,debug my code,explain this code,convert miles to kilometres,find the best restaurant,choose a name for my dog"
).split(",")
UNKNOWN_QUESTIONS = (
    "who is the president,who won the world cup,how tall is the highest mountain,how far is the moon,when did the war end,who wrote this book,"
    "how do I tie a tie,what should I eat,how do I lose weight,how old is the universe,what is the meaning of life,who invented the telephone,"
    "how do planes fly,why do cats purr,what is love,where can I buy shoes,how many people live on Earth,what is the speed of light,"
    "what is the square root of 1764,how do I cook an egg,who painted this picture,what is the best phone,how do I learn the piano,"
    "what is 348 times 912,why is the sea salty,what happened yesterday,what is in the news,who is the richest person,how does a car work,"
    "which film should I watch,what is the population of Brazil,how do I fix my bike,how long do turtles live,what is dark matter,"
    "how is glass made,where is my phone,what does my dog want,is there life on Mars,what is the largest number,can pigs fly"
).split(",")
SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful, honest assistant.", "Answer briefly.",
    "Be friendly.", "Be concise.", "You are an assistant for a cloud provider.", "Answer in English.", "You answer questions about Sublet.",
    "You are a support engineer.", "Answer in one or two sentences.", "Be polite and short.", "You are a small language model.",
    "Do your best.", "You are a test assistant.", "Help the user.", "You are a friendly chat bot. Keep your answers short.",
]
